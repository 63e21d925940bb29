"""`fleet ca` and `fleet broker` as a person and a program use them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import (
    Certificates,
    RawClient,
    free_port,
    is_open,
    mosquitto_program,
    running_plain_mosquitto,
    wait_until,
)
from click.testing import CliRunner

from fleet_server.broker import mosquitto
from fleet_server.cli.broker import broker
from fleet_server.cli.ca import ca
from fleet_server.errors import FleetError
from fleet_server.services import authority

FLEET = str(Path(sys.executable).parent / "fleet")


def run(command: Any, *arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints."""
    result = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextmanager
def embedded_process(data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if "FLEET_" not in name}
    process = subprocess.Popen(
        [FLEET, "broker", "embedded", "--data", str(data), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        with process:
            yield process
            process.terminate()
    finally:
        process.kill()


def test_embedded_broker_says_its_ports_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    made = run(ca, "init", "--data", str(tmp_path))
    assert "broker.crt" in made["made"]
    ports = ("--node-port", "0", "--service-port", "0")
    with embedded_process(tmp_path, *ports, "--json") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        status = json.loads((tmp_path / "broker" / "status.json").read_text())
        assert status["ports"] == {
            "nodes": ready["node_port"],
            "services": ready["service_port"],
        }
        certificates = Certificates(tmp_path / "ca")
        with RawClient(
            ready["node_port"], certificates.node("n-1x"), certificates.files.root_certificate
        ) as node:
            assert node.connect("n-2x") != 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    status = json.loads((tmp_path / "broker" / "status.json").read_text())
    assert status["refused"]["client_id_not_own"] == 1


def test_port_that_is_taken_is_named_in_one_sentence(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with embedded_process(tmp_path, "--node-port", port, "--service-port", "0") as process:
            _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert port in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["embedded", "--host", "0.0.0.0"], "this machine"),  # noqa: S104 - refused
        (["config", "--node-port", "8884"], "different ports"),
        (["config", "--user", "no-such-user"], "no-such-user"),
        (["kick", "n-1a2b3c"], "by itself"),
        (["mosquitto"], "fleet broker config"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    tmp_path: Path, arguments: list[str], word: str
) -> None:
    authority.initialise(tmp_path / "ca")
    result = CliRunner().invoke(broker, [*arguments, "--data", str(tmp_path)])
    assert isinstance(result.exception, FleetError)
    assert word in str(result.exception)


@pytest.mark.parametrize("content", [None, b"no list"], ids=["missing", "damaged"])
def test_broker_without_a_revocation_list_says_how_to_get_one(
    tmp_path: Path, content: bytes | None
) -> None:
    authority.initialise(tmp_path / "ca")
    crl = authority.AuthorityFiles(tmp_path / "ca").issuing.crl
    crl.unlink() if content is None else crl.write_bytes(content)
    arguments = ["embedded", "--data", str(tmp_path), "--node-port", "0", "--service-port", "0"]
    result = CliRunner().invoke(broker, arguments)
    assert isinstance(result.exception, FleetError)
    assert "fleet ca init" in str(result.exception)


def test_revoking_with_a_damaged_list_is_refused_and_the_list_is_not_lost(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "ca")
    certificates.node("n-1a2b3c")
    certificates.files.issuing.crl.write_bytes(b"no list")
    for arguments in (["revoke", "n-1a2b3c"], ["crl"]):
        result = CliRunner().invoke(ca, [*arguments, "--data", str(tmp_path)])
        assert isinstance(result.exception, FleetError)
        assert "put your copy back" in str(result.exception)
    assert certificates.files.issuing.crl.read_bytes() == b"no list"


def test_without_an_authority_one_is_told_how_to_make_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(broker, ["config", "--data", str(tmp_path)])
    assert "fleet ca init" in str(result.exception)


class City:
    """A data folder with an authority and the configuration of a mosquitto on free ports."""

    def __init__(self, data: Path, *options: str) -> None:
        mosquitto_program()
        self.data = data
        self.certificates = Certificates(data / "ca")
        self.node_port, self.service_port = free_port(), free_port()
        self.made = run(
            broker,
            *("config", "--data", str(data), "--out", str(data / "out")),
            *("--node-port", str(self.node_port), "--service-port", str(self.service_port)),
            *options,
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """`fleet broker mosquitto`, when it is ready."""
        with (self.data / "broker.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.command(), "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment(),
            )
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline() or "{}")
            assert ready == {
                "event": "ready",
                "node_port": self.node_port,
                "service_port": self.service_port,
            }
            yield process
        finally:
            process.terminate()  # not killed: it would leave mosquitto behind
            process.wait(30)
            process.communicate()

    def command(self) -> list[str]:
        program, *arguments = shlex.split(self.made["start"])
        assert program == "fleet"
        return [FLEET, *arguments, "--data", str(self.data)]

    def environment(self, **more: str) -> dict[str, str]:
        usual = {name: value for name, value in os.environ.items() if "FLEET_" not in name}
        return {**usual, "FLEET_BROKER_URL": self.made["broker_url"], **more}

    def node(self, node_id: str) -> RawClient:
        pair = self.certificates.node(node_id)
        return RawClient(self.node_port, pair, self.certificates.files.root_certificate)

    def service(self, name: str) -> RawClient:
        pair = self.certificates.service(name)
        return RawClient(self.service_port, pair, self.certificates.files.root_certificate)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.data / "broker" / "status.json").read_text())
        return status


@pytest.mark.needs_mosquitto
def test_mosquitto_is_run_counted_and_ended(tmp_path: Path) -> None:
    city = City(tmp_path)
    assert city.made["broker_url"] == (
        f"mqtts://127.0.0.1:{city.node_port}?service_port={city.service_port}"
    )
    with city.running() as process:
        with city.node("n-1x") as node:
            assert node.connect("n-1x") == 0
            node.publish_and_wait("up/n-2x/tm", b"forged")
            wait_until(lambda: city.status()["refused"]["publish_denied"] == 1)
            assert city.status()["clients"] == ["n-1x"]
            assert city.status()["ports"] == {
                "nodes": city.node_port,
                "services": city.service_port,
            }
        child = city.status()["pid"]
    assert process.returncode == 0
    assert not Path(f"/proc/{child}").exists()
    assert city.status()["refused"]["publish_denied"] == 1


@pytest.mark.needs_mosquitto
def test_revocation_by_command_line_ends_the_live_session_on_mosquitto(tmp_path: Path) -> None:
    city = City(tmp_path)
    with city.running(), city.node("n-gone") as gone, city.node("n-well") as well:
        assert (gone.connect("n-gone"), well.connect("n-well")) == (0, 0)
        run(ca, "revoke", "n-gone", "--data", str(tmp_path))
        wait_until(lambda: not gone.is_alive(), patience_s=5)
        assert well.is_alive()
        wait_until(lambda: city.status()["refused"]["certificate_revoked"] == 1)
        with city.node("n-gone") as again:
            assert again.connect("n-gone") == 0, "a new certificate is not the revoked one"
            run(ca, "crl", "--data", str(tmp_path))
            run(ca, "revoke", "n-well", "--data", str(tmp_path))
            wait_until(lambda: not well.is_alive(), patience_s=5)
            assert again.is_alive()


@pytest.mark.needs_mosquitto
def test_revocation_of_a_service_ends_its_session_on_mosquitto(tmp_path: Path) -> None:
    city = City(tmp_path)
    with city.running():
        with city.service("svc-ingest") as copied:
            assert copied.connect("svc-ingest-copied") == 0
            run(ca, "issue", "svc-ingest", "--data", str(tmp_path))
            run(ca, "revoke", "svc-ingest", "--data", str(tmp_path))
            wait_until(lambda: not copied.is_alive(), patience_s=5)
        wait_until(lambda: is_open(city.node_port))
        with city.node("n-well") as well:
            assert well.connect("n-well") == 0


@pytest.mark.needs_mosquitto
def test_mosquitto_left_behind_by_a_kill_is_replaced(tmp_path: Path) -> None:
    city = City(tmp_path)
    with city.running() as killed:
        left_behind = city.status()["pid"]
        killed.kill()
        killed.wait(10)
        assert Path(f"/proc/{left_behind}").exists()
        with city.running(), city.node("n-1x") as node:
            assert city.status()["pid"] != left_behind
            assert node.connect("n-1x") == 0


@pytest.mark.needs_mosquitto
def test_second_one_for_the_same_mosquitto_is_refused_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    city = City(tmp_path)
    with city.running() as first, city.node("n-1x") as node:
        assert node.connect("n-1x") == 0
        done = subprocess.run(
            city.command(), capture_output=True, text=True, timeout=20, env=city.environment()
        )
        assert done.returncode == 1
        assert f"runs already: process {first.pid}" in done.stderr
        assert node.is_alive()


@pytest.mark.needs_mosquitto
def test_mosquitto_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    city = City(tmp_path)
    with socket.create_server(("127.0.0.1", city.node_port)):
        done = subprocess.run(
            city.command(), capture_output=True, text=True, timeout=20, env=city.environment()
        )
    assert done.returncode == 1
    assert "Address already in use" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize(
    "url", ["embedded", "mqtts://127.0.0.1:1?service_port=2"], ids=["embedded", "another"]
)
def test_mosquitto_is_not_run_for_a_server_that_uses_another_broker(
    tmp_path: Path, url: str
) -> None:
    city = City(tmp_path)
    done = subprocess.run(
        city.command(),
        capture_output=True,
        text=True,
        timeout=20,
        env=city.environment(FLEET_BROKER_URL=url),
    )
    assert done.returncode == 2
    assert "FLEET_BROKER_URL" in done.stderr


@pytest.mark.needs_mosquitto
def test_public_reads_what_is_public_at_a_broker_of_its_own(tmp_path: Path) -> None:
    public_port = free_port()
    city = City(tmp_path, "--public-port", str(public_port))
    program, *arguments = shlex.split(city.made["start_public"])
    assert program == "mosquitto"
    trusted = city.certificates.files.root_certificate
    with (
        city.running(),
        running_plain_mosquitto(Path(arguments[-1]), port=public_port),
        city.service("svc-control") as control,
    ):
        assert control.connect("svc-control") == 0
        control.publish_and_wait("v1.1/Datastreams(1)", b"seen", is_retained=True)
        control.publish_and_wait("dn/n-1x/des", b"unseen", is_retained=True)
        with RawClient(public_port, None, trusted) as anyone:
            assert anyone.connect("anyone") == 0
            anyone.subscribe("v1.1/#", "dn/#", "up/#")
            anyone.publish_and_wait("v1.1/Datastreams(1)", b"forged", is_retained=True)
            wait_until(lambda: anyone.drain())
            control.publish_and_wait("v1.1/Datastreams(1)", b"later", is_retained=True)
            wait_until(lambda: len(anyone.drain()) > 1)
            assert [payload for _, payload, _ in anyone.drain()] == [b"seen", b"later"]
        assert "svc-public" in city.status()["clients"]


def test_services_reach_a_broker_on_another_machine_under_its_host_name(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path))
    made = run(broker, "config", "--data", str(tmp_path), "--host", "broker.example.org")
    lines = Path(made["configuration"]).read_text().splitlines()
    assert [line.strip() for line in lines if line.startswith("listener ")] == [
        "listener 8883",
        "listener 8884",
    ]
    assert made["broker_url"] == "mqtts://broker.example.org:8883?service_port=8884"


def test_mosquitto_runs_as_debians_user_only_where_that_user_can_read(tmp_path: Path) -> None:
    """pytest's folders are closed to others: there mosquitto stays who starts it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    own = Path("/proc/self").owner()
    assert mosquitto.choose_user([closed]) == own


def test_configuration_written_again_is_the_same(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path))
    first = run(broker, "config", "--data", str(tmp_path))
    text = Path(first["configuration"]).read_text()
    assert run(broker, "config", "--data", str(tmp_path)) == first
    assert Path(first["configuration"]).read_text() == text


def test_revocation_by_command_line_is_told_and_kept(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path), "--host", "broker.example.org")
    certificates = Certificates(tmp_path / "ca")
    certificates.node("n-1a2b3c")
    told = run(ca, "revoke", "n-1a2b3c", "--data", str(tmp_path))
    kept = authority.revoked_serials(tmp_path / "ca")
    assert [int(serial, 16) for serial in told["revoked"]] == list(kept)
    assert len(run(ca, "crl", "--data", str(tmp_path))["crl"]) == 2
    renewed = run(ca, "issue", "svc-ingest", "--data", str(tmp_path))
    assert stat.S_IMODE(Path(renewed["certificate"]).with_suffix(".key").stat().st_mode) == 0o600
