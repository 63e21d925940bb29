"""Settings: every one of them, read once when a process starts, from `FLEET_…` or the TOML file that `FLEET_CONFIG` names.

The environment wins over the file, what a command line says wins over both. A setting that is unknown, wrong or at odds with another
stops the start with one sentence that names it. `docs/configuration.md` shows the table of this module; a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from fleet_server import clock
from fleet_server.errors import Invalid, Unavailable

ENVIRONMENT_PREFIX = "FLEET_"
CONFIG_VARIABLE = "FLEET_CONFIG"
EMBEDDED = "embedded"
_OFF = "off"
DEFAULT_NODE_LISTENER_PORT = 8883
SECRET_KEY_MIN_LENGTH = 32
_TOPIC_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PORT_RANGE = "from 1 to 65535"


class SettingWrong(Invalid):
    """A setting cannot be what it is; the sentence names it."""

    code = "setting_wrong"


def _about(help_text: str, default_text: str = "") -> dict[str, str]:
    return {"help": help_text, "default_text": default_text}


@dataclass(frozen=True)
class Settings:
    """All settings, checked. Field `x` is `FLEET_X` in the environment and `x` in the TOML file."""

    data_dir: Path = field(
        default=Path(".fleet"),
        metadata=_about("folder for what the server keeps itself: SQLite, certificate authority"),
    )
    database_url: str = field(
        default="",
        metadata=_about(
            "`sqlite:///…` or `postgresql+psycopg://…`",
            default_text="`sqlite:///<data_dir>/fleet.sqlite3`",
        ),
    )
    broker_url: str = field(
        default=EMBEDDED,
        metadata=_about(
            "`embedded`, or the nodes' listener: `mqtts://host:port`, `mqtt://` on loopback only. "
            "`?service_port=` is the services' listener, by default the next port"
        ),
    )
    topic_prefix: str = field(
        default="", metadata=_about("put in front of every topic, for several fleets on one broker")
    )
    files_url: str = field(
        default="",
        metadata=_about(
            "folder or object store for bundles and exports: `file://…`, `s3://…`",
            default_text="`file://<data_dir>/files`",
        ),
    )
    revision_backups: str = field(
        default="",
        metadata=_about(
            "folder for the backup that is made before stored values are corrected; `off`: you make backups yourself",
            default_text="`<data_dir>/backups_before_revisions`",
        ),
    )
    secret_key: str = field(
        default="",
        metadata=_about(
            f"signs sessions, seals Wi-Fi passwords of nodes and second factors of people; at least {SECRET_KEY_MIN_LENGTH} characters, the same for all processes",
            default_text="drawn once, kept in `<data_dir>/secret_key`",
        ),
    )
    ca_passphrase: str = field(
        default="",
        metadata=_about(
            "opens the authority's keys where `fleet ca lock` has encrypted them",
            default_text="none: the keys are in the clear",
        ),
    )
    ca_passphrase_file: str = field(
        default="",
        metadata=_about(
            "file whose first line is that passphrase, for a secret that your service manager hands in"
        ),
    )
    public_url: str = field(
        default="http://127.0.0.1:8080",
        metadata=_about("address at which people reach the pages; stands in the feeds' links"),
    )
    port: int = field(default=8080, metadata=_about("port of pages, feeds and API; 0 = any"))
    node_port: int = field(
        default=8443, metadata=_about("port of the nodes' TLS listener (`/node/v1`); 0 = any")
    )
    ntp_server: str = field(
        default="pool.ntp.org",
        metadata=_about("where the nodes get their time; handed out at enrolment"),
    )
    require_totp: bool = field(
        default=False,
        metadata=_about(
            "an administrator without a second factor has to set one up before anything else"
        ),
    )
    oidc_issuer: str = field(
        default="",
        metadata=_about(
            "another place where people may log in with OpenID Connect: its issuer, like `https://login.example.org/realms/city`",
            default_text="local accounts only",
        ),
    )
    oidc_client_id: str = field(
        default="", metadata=_about("what this server is called there", default_text="none")
    )
    oidc_client_secret: str = field(
        default="", metadata=_about("its secret there", default_text="none")
    )
    oidc_name: str = field(
        default="",
        metadata=_about("what the login page calls that place", default_text="the issuer's host"),
    )
    oidc_roles_claim: str = field(
        default="",
        metadata=_about(
            "claim of the ID token that roles follow at each login, like `groups`",
            default_text="none: an administrator gives roles",
        ),
    )
    oidc_roles: str = field(
        default="",
        metadata=_about(
            "which values of that claim mean which roles: `fleet-ops=operator, fleet-audit=auditor`",
            default_text="none",
        ),
    )
    oidc_scope: str = field(
        default="all",
        metadata=_about("scope of accounts that such a login makes: `trees`, `waters` or `all`"),
    )
    oidc_hosts: str = field(
        default="",
        metadata=_about(
            "hosts, addresses and networks, separated by commas, where that place may be though they are private (and without TLS)",
            default_text="public ones only",
        ),
    )
    metrics_token: str = field(
        default="",
        metadata=_about("closes `/metrics` to who does not bear it", default_text="open"),
    )
    smtp_url: str = field(
        default="",
        metadata=_about(
            "mail server for alerts: `smtps://user:password@host`, or `smtp://…` with STARTTLS",
            default_text="no mails",
        ),
    )
    mail_from: str = field(
        default="stadtsensor@localhost", metadata=_about("sender of the mails about alerts")
    )
    webhook_hosts: str = field(
        default="",
        metadata=_about(
            "hosts, addresses and networks, separated by commas, that webhooks may go to though they are private (and without TLS)",
            default_text="public ones only",
        ),
    )
    approval_above: int = field(
        default=50,
        metadata=_about(
            "a configuration change of more nodes than this needs another person's approval; 0 = none does, as in the demo"
        ),
    )
    demo: bool = field(
        default=False, metadata=_about("all sites are public; limits are those of the demo")
    )
    clock: str = field(
        default=clock.REAL,
        metadata=_about("`real`, or the demo's `<simulated UTC s>@<wall UTC s>x<speed>`"),
    )
    log_level: str = field(default="info", metadata=_about("`debug`, `info`, `warning` or `error`"))
    log_format: str = field(default="console", metadata=_about("`console` or `json`"))

    @property
    def ca_dir(self) -> Path:
        """Where the fleet's own certificate authority lives."""
        return self.data_dir / "ca"

    @property
    def release_keys_dir(self) -> Path:
        """Where the two keys lie with which the server signs for nodes."""
        return self.data_dir / "release_keys"

    @property
    def revision_backups_dir(self) -> Path | None:
        """Where the backup before a revision goes; None: nowhere."""
        return None if self.revision_backups == _OFF else Path(self.revision_backups)

    @property
    def broker_status_path(self) -> Path:
        """Where a broker that we run keeps its ports and what it has refused."""
        return self.data_dir / "broker" / "status.json"

    @property
    def broker_is_embedded(self) -> bool:
        return self.broker_url == EMBEDDED

    @property
    def approval_wanted_above(self) -> int | None:
        """Of how many nodes a change needs another person's approval; None: of no number."""
        return None if self.demo or not self.approval_above else self.approval_above

    @property
    def service_port(self) -> int:
        """Port of the broker's listener for services."""
        parts = urlsplit(self.broker_url)
        wanted = parse_qs(parts.query).get("service_port")
        return int(wanted[0]) if wanted else (parts.port or DEFAULT_NODE_LISTENER_PORT) + 1

    def ca_key_passphrase(self) -> str:
        """What opens the authority's keys; empty where nobody gave it.

        Raises:
            Unavailable: the file with it cannot be read.
        """
        if not self.ca_passphrase_file:
            return self.ca_passphrase
        try:
            content = Path(self.ca_passphrase_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise Unavailable(
                f"ca_passphrase_file: {self.ca_passphrase_file} cannot be read."
            ) from problem
        return content.partition("\n")[0].rstrip("\r")

    def session_key(self) -> str:
        """`secret_key`, or the one kept in the data folder, drawn when it is first asked for.

        Raises:
            Unavailable: what is kept there is no key.
        """
        if self.secret_key:
            return self.secret_key
        path = self.data_dir / "secret_key"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            # Written aside and linked: of two processes that start together, one wins and both read a whole key.
            drawn = self.data_dir / f"secret_key.{secrets.token_hex(8)}"
            descriptor = os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                file.write(secrets.token_urlsafe(48))
            with suppress(FileExistsError):
                path.hardlink_to(drawn)
            drawn.unlink()
        key = path.read_bytes()
        if len(key) < SECRET_KEY_MIN_LENGTH or not key.isascii():
            raise Unavailable(
                f"{path} is damaged: delete it, a new one is drawn, who is logged in logs in again, Wi-Fi passwords of nodes and second factors are given again."
            )
        return key.decode()


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """The settings of this process. `overrides` come from a command line; None means "not given".

    Raises:
        SettingWrong: unknown, of the wrong kind, or at odds with another; the sentence names the setting.
    """
    environment = os.environ if environ is None else environ
    given: dict[str, tuple[object, str]] = {}
    if environment.get(CONFIG_VARIABLE):
        path = environment[CONFIG_VARIABLE]
        given |= {name: (value, f"{name} in {path}") for name, value in _from_file(path).items()}
    given |= {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): (value, name)
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE
    }
    given |= {name: (value, name) for name, value in overrides.items() if value is not None}
    if overrides.get("database_url") == "":
        # In the environment an empty one is the default; who types it means another database than that.
        check_database_url("")
    fields = {known.name: known for known in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for name, (value, where) in given.items():
        if name not in fields:
            raise SettingWrong(f"{where} is not a setting; docs/configuration.md lists them all.")
        values[name] = _converted(value, kind=type(fields[name].default), where=where)
    return _checked(_completed(Settings(**values)))


def _from_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingWrong(
            f"{CONFIG_VARIABLE}: {path} cannot be read ({error.strerror})."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingWrong(f"{CONFIG_VARIABLE}: {path} is not TOML ({error}).") from error


def _converted(value: object, *, kind: type, where: str) -> object:
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise SettingWrong(f"{where} must be true or false, not {value!r}.")
    if kind is int:
        text = str(value)
        if not isinstance(value, bool) and text.isdecimal():
            return int(text)
        raise SettingWrong(f"{where} must be a whole number, not {value!r}.")
    if not isinstance(value, str | os.PathLike):
        raise SettingWrong(f"{where} must be a text, not {value!r}.")
    return Path(value) if issubclass(kind, Path) else os.fspath(value)


def _completed(settings: Settings) -> Settings:
    try:
        data_dir = settings.data_dir.expanduser().absolute()
    except RuntimeError as error:
        raise SettingWrong(f"data_dir {settings.data_dir} names no home folder.") from error
    return dataclasses.replace(
        settings,
        data_dir=data_dir,
        database_url=settings.database_url or f"sqlite:///{data_dir / 'fleet.sqlite3'}",
        files_url=settings.files_url or (data_dir / "files").as_uri(),
        revision_backups=settings.revision_backups or str(data_dir / "backups_before_revisions"),
        public_url=settings.public_url.rstrip("/"),
    )


def _checked(settings: Settings) -> Settings:
    check_database_url(settings.database_url)
    _check_broker_url(settings)
    if _split("files_url", settings.files_url).scheme not in ("file", "s3"):
        raise SettingWrong("files_url must begin with file:// or s3://.")
    if settings.topic_prefix and _TOPIC_PREFIX.fullmatch(settings.topic_prefix) is None:
        raise SettingWrong("topic_prefix may hold letters, digits, - and _, and / between them.")
    if settings.secret_key and len(settings.secret_key) < SECRET_KEY_MIN_LENGTH:
        raise SettingWrong(f"secret_key must have at least {SECRET_KEY_MIN_LENGTH} characters.")
    if _split("public_url", settings.public_url).scheme not in ("http", "https"):
        raise SettingWrong("public_url must begin with http:// or https://.")
    _check_mail(settings)
    _check_oidc(settings)
    for name in ("port", "node_port"):
        if getattr(settings, name) > 65535:
            raise SettingWrong(f"{name} must be at most 65535.")
    if settings.port == settings.node_port != 0:
        raise SettingWrong("port and node_port must differ.")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise SettingWrong("log_level must be debug, info, warning or error.")
    if settings.log_format not in ("console", "json"):
        raise SettingWrong("log_format must be console or json.")
    try:
        clock.parse_clock(settings.clock)
    except Invalid as error:
        raise SettingWrong(str(error)) from error
    if settings.clock != clock.REAL and not settings.demo:
        raise SettingWrong("clock can only be simulated when demo is true.")
    if settings.clock != clock.REAL and settings.require_totp:
        raise SettingWrong(
            "require_totp wants the real clock: no phone shows a simulated one's codes."
        )
    return settings


def check_database_url(url: str) -> None:
    """Raises SettingWrong for what can be no database of ours."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("sqlite", "postgresql+psycopg", "postgresql"):
        raise SettingWrong("database_url must begin with sqlite:/// or postgresql+psycopg://.")
    if scheme == "sqlite" and (not rest.startswith("/") or rest in ("/", "/:memory:")):
        raise SettingWrong("database_url must name a file, as in sqlite:///fleet.sqlite3.")
    if scheme != "sqlite" and not _has_good_port(rest):
        raise SettingWrong(f"database_url has a port that is not a number {_PORT_RANGE}.")


def _has_good_port(address: str) -> bool:
    """Of `user:password@host:port/database?query`: no port is good, too."""
    host_and_port = re.split("[/?]", address.rpartition("@")[2], maxsplit=1)[0]
    port = re.sub(r"^\[[^]]*\]", "", host_and_port).partition(":")[2]
    return not port or (port.isdecimal() and 0 < int(port) < 65536)


def _check_broker_url(settings: Settings) -> None:
    url = settings.broker_url
    if url == EMBEDDED:
        return
    parts = _split("broker_url", url)
    if parts.scheme not in ("mqtts", "mqtt") or not parts.hostname:
        raise SettingWrong("broker_url must be embedded, mqtts://host:port or mqtt://host:port.")
    if parts.scheme == "mqtt" and not is_loopback(parts.hostname):
        raise SettingWrong("broker_url must be mqtts:// unless the broker is on this machine.")
    try:
        ports = (parts.port or DEFAULT_NODE_LISTENER_PORT, settings.service_port)
    except ValueError:
        ports = (0, 0)
    if not all(0 < port < 65536 for port in ports):
        raise SettingWrong(f"broker_url has a port that is not a number {_PORT_RANGE}.")
    if ports[0] == ports[1]:
        raise SettingWrong("broker_url must give nodes and services different ports.")


def _check_mail(settings: Settings) -> None:
    address = settings.mail_from
    if not address.isprintable() or " " in address or address.count("@") != 1:
        raise SettingWrong("mail_from must be one e-mail address, like alerts@example.org.")
    if not settings.smtp_url:
        return
    parts = _split("smtp_url", settings.smtp_url)
    try:
        has_good_port = parts.port is None or parts.port > 0
    except ValueError:
        has_good_port = False
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or not has_good_port:
        raise SettingWrong(
            "smtp_url must be smtps://host or smtp://host, with user:password@ and :port where wanted."
        )


def _check_oidc(settings: Settings) -> None:
    if not settings.oidc_issuer:
        for name in ("oidc_client_id", "oidc_client_secret", "oidc_roles_claim", "oidc_roles"):
            if getattr(settings, name):
                raise SettingWrong(f"{name} wants oidc_issuer, which says where people log in.")
        return
    parts = _split("oidc_issuer", settings.oidc_issuer)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise SettingWrong("oidc_issuer must be an address like https://login.example.org/city.")
    if not settings.oidc_client_id or not settings.oidc_client_secret:
        raise SettingWrong("oidc_issuer wants oidc_client_id and oidc_client_secret, too.")
    if bool(settings.oidc_roles_claim) != bool(settings.oidc_roles):
        raise SettingWrong("oidc_roles_claim and oidc_roles want each other.")
    if settings.oidc_scope not in ("trees", "waters", "all"):
        raise SettingWrong("oidc_scope must be trees, waters or all.")


def _split(name: str, url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise SettingWrong(f"{name} is no address ({error}).") from error


def is_host(text: str) -> bool:
    """True for an address, or a name that a machine can have (RFC 1123, 2.1)."""
    try:
        ip_address(text)
    except ValueError:
        labels = text.removesuffix(".").split(".")
        return len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)
    return "%" not in text


def is_loopback(host: str) -> bool:
    """True when `host` is this machine, as an address or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
