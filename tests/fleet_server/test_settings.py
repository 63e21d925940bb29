"""Settings: what is wrong stops the start with one sentence that names the setting."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fleet_server.errors import Unavailable
from fleet_server.settings import SettingWrong, load_settings


def test_without_any_setting_everything_is_embedded(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/fleet.sqlite3"
    assert settings.broker_is_embedded
    assert settings.files_url == (tmp_path / "files").as_uri()


def test_environment_wins_over_file_and_command_line_over_both(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('port = 1001\nnode_port = 1002\nlog_level = "debug"\n', encoding="utf-8")
    environment = {"FLEET_CONFIG": str(file), "FLEET_PORT": "2001", "FLEET_NODE_PORT": "2002"}
    settings = load_settings(environment, node_port=3002, log_format=None)
    assert (settings.port, settings.node_port, settings.log_level) == (2001, 3002, "debug")


WRONG = {
    "unknown variable": ({"FLEET_DATABSE_URL": "x"}, "FLEET_DATABSE_URL"),
    "not a number": ({"FLEET_PORT": "eighty"}, "FLEET_PORT"),
    "not a truth": ({"FLEET_DEMO": "perhaps"}, "FLEET_DEMO"),
    "another database": ({"FLEET_DATABASE_URL": "mysql://h/d"}, "database_url"),
    "a database in memory": ({"FLEET_DATABASE_URL": "sqlite:///:memory:"}, "database_url"),
    "another broker": ({"FLEET_BROKER_URL": "amqp://h"}, "broker_url"),
    "a plain broker elsewhere": ({"FLEET_BROKER_URL": "mqtt://broker.example:1883"}, "broker_url"),
    "one port for nodes and services": (
        {"FLEET_BROKER_URL": "mqtts://h:1?service_port=1"},
        "broker_url",
    ),
    "a port that is none": ({"FLEET_BROKER_URL": "mqtts://h:x"}, "broker_url"),
    "a short key": ({"FLEET_SECRET_KEY": "short"}, "secret_key"),
    "files by ftp": ({"FLEET_FILES_URL": "ftp://h/f"}, "files_url"),
    "an address without a scheme": ({"FLEET_PUBLIC_URL": "example.org"}, "public_url"),
    "one port twice": ({"FLEET_PORT": "8080", "FLEET_NODE_PORT": "8080"}, "node_port"),
    "a wildcard in the prefix": ({"FLEET_TOPIC_PREFIX": "a/#"}, "topic_prefix"),
    "a clock that is none": ({"FLEET_CLOCK": "yesterday", "FLEET_DEMO": "1"}, "clock"),
    "simulated time outside the demo": ({"FLEET_CLOCK": "1@2x3"}, "clock"),
    "mail by another way": ({"FLEET_SMTP_URL": "http://mail.example.org"}, "smtp_url"),
    "a sender that is none": ({"FLEET_MAIL_FROM": "alerts"}, "mail_from"),
    "codes of a phone in simulated time": (
        {"FLEET_CLOCK": "1@2x3", "FLEET_DEMO": "1", "FLEET_REQUIRE_TOTP": "1"},
        "require_totp",
    ),
    "a login elsewhere without a name for us": (
        {"FLEET_OIDC_ISSUER": "https://login.example.org"},
        "oidc_client_id",
    ),
    "a name for us, and no place": ({"FLEET_OIDC_CLIENT_ID": "x"}, "oidc_issuer"),
    "a place that is none": ({"FLEET_OIDC_ISSUER": "login.example.org"}, "oidc_issuer"),
    "a level that is none": ({"FLEET_LOG_LEVEL": "loud"}, "log_level"),
    "a format that is none": ({"FLEET_LOG_FORMAT": "xml"}, "log_format"),
    "a file that is not there": ({"FLEET_CONFIG": "/nowhere/fleet.toml"}, "FLEET_CONFIG"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_setting_is_refused_with_one_sentence_that_names_it(case: str) -> None:
    environment, name = WRONG[case]
    with pytest.raises(SettingWrong, match=name) as caught:
        load_settings(environment)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_unknown_setting_in_the_file_is_refused_with_the_files_name(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("prot = 80\n", encoding="utf-8")
    with pytest.raises(SettingWrong, match=r"prot in .*fleet\.toml"):
        load_settings({"FLEET_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("embedded", 8884),
        ("mqtts://h", 8884),
        ("mqtts://h:1000", 1001),
        ("mqtts://h:1000?service_port=5", 5),
    ],
)
def test_services_have_the_next_port_unless_told_otherwise(url: str, port: int) -> None:
    assert load_settings({"FLEET_BROKER_URL": url}).service_port == port


def test_processes_that_start_together_share_one_session_key(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path / "new")
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(settings.session_key())) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 32
    assert (tmp_path / "new" / "secret_key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_session_key_that_is_damaged_is_named_and_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    with pytest.raises(Unavailable, match=r"secret_key is damaged: delete it, a new one is drawn"):
        load_settings({}, data_dir=tmp_path).session_key()
