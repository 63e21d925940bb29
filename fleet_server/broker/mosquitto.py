"""Configuration of a real mosquitto 2.0: doors, access, persistence. Nothing in it depends on our code at run time.

Invariants: a node's client id and user name are its certificate's CN; the door for services trusts another authority
than the one that signs nodes; what a broker needs to read of the authority's folder it can read, and no more.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from fleet_server.broker.access import (
    NODE_READS,
    NODE_WRITES,
    PUBLIC_TREE,
    SERVICE_ACCESS,
    ListenerName,
)
from fleet_server.errors import Invalid
from fleet_server.services.authority import AuthorityFiles
from fleet_server.settings import is_loopback
from fleet_server.wire.topics import SERVICE_PUBLIC

PACKAGE_USER = "mosquitto"
CONFIGURATION_FILE = "mosquitto.conf"
ACCESS_FILE = "access"
PUBLIC_CONFIGURATION_FILE = "public.conf"
PUBLIC_ACCESS_FILE = "public-access"
STORE_FOLDER = "store"
PID_FILE = "mosquitto.pid"
_BROKER_MAY_READ_KEY = 0o640


@dataclass(frozen=True)
class MosquittoPlan:
    """What the operator chooses."""

    folder: Path
    host: str
    """Name or address under which nodes and services reach the broker."""
    node_port: int
    service_port: int
    public_port: int | None
    """Where a broker of its own lets anyone read what is public; None = nowhere."""
    service_bind: str | None
    """Address of the services' listener; None = as the nodes' one, since services come by the same host name."""
    user: str | None
    """System user that mosquitto becomes when root starts it; None = chosen by `choose_user`."""


def write_configuration(plan: MosquittoPlan, files: AuthorityFiles, *, prefix: str = "") -> Path:
    """Write `mosquitto.conf` and its access file, and those of the public's broker; returns the former's path. Safe to repeat.

    When root writes them for another user, that user gets the store and may read the broker's key; no other file changes.

    Raises:
        Invalid: the ports are not different, there is no such user, or no certificate for the public's broker.
    """
    ports = [port for port in (plan.node_port, plan.service_port, plan.public_port) if port]
    if len(set(ports)) < len(ports):
        raise Invalid("The listeners need different ports.")
    if plan.user and not _exists(plan.user):
        raise Invalid(f"There is no user {plan.user!r} on this machine.")
    if plan.public_port and not files.certificate(SERVICE_PUBLIC).exists():
        raise Invalid(
            f"There is no certificate of {SERVICE_PUBLIC} yet; run `fleet ca init` again."
        )
    folder = plan.folder.absolute()
    store = folder / STORE_FOLDER
    store.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    user = plan.user or choose_user([files.folder, folder])
    readable = [_write_private(folder / ACCESS_FILE, access_file(prefix)), files.key("broker")]
    (folder / CONFIGURATION_FILE).write_text(
        _configuration(plan, files, folder, user), encoding="utf-8"
    )
    if plan.public_port:
        public_access = f"topic read {_start(prefix)}{PUBLIC_TREE}\n"
        readable += [
            _write_private(folder / PUBLIC_ACCESS_FILE, public_access),
            files.key(SERVICE_PUBLIC),
        ]
        text = _public_configuration(plan, files, folder, user=user, prefix=prefix)
        (folder / PUBLIC_CONFIGURATION_FILE).write_text(text, encoding="utf-8")
    _hand_over(user, own=[store], readable=readable)
    return folder / CONFIGURATION_FILE


def doors_of(configuration: Path) -> dict[int, ListenerName]:
    """Which of our doors stands at which port, by what a configuration demands there.

    Raises:
        Invalid: there is no such file, or no door for nodes in it.
    """
    try:
        text = configuration.read_text(encoding="utf-8")
    except OSError as problem:
        raise Invalid(
            f"{configuration} cannot be read ({problem.strerror}); `fleet broker config` writes it."
        ) from problem
    except UnicodeDecodeError as problem:
        raise Invalid(
            f"{configuration} is no configuration of mosquitto; `fleet broker config` writes one."
        ) from problem
    doors = {}
    _, *parts = re.split(r"^listener (\d+)\b", text, flags=re.MULTILINE)
    for port, block in zip(parts[::2], parts[1::2], strict=True):
        is_for_nodes = "use_username_as_clientid true" in block.splitlines()
        doors[int(port)] = ListenerName.NODES if is_for_nodes else ListenerName.SERVICES
    if ListenerName.NODES not in doors.values():
        raise Invalid(f"{configuration} opens no door for nodes; `fleet broker config` writes one.")
    return doors


def pid_path(configuration: Path) -> Path:
    """Where mosquitto notes its process id."""
    return configuration.parent / STORE_FOLDER / PID_FILE


def _write_private(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(_BROKER_MAY_READ_KEY)
    return path


def _start(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""


def choose_user(folders: list[Path]) -> str:
    """Whom mosquitto shall be: Debian's `mosquitto` when root starts it and that user can get at the files, else who we are."""
    own = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() != 0 or not _exists(PACKAGE_USER):
        return own
    reachable = all(
        parent.stat().st_mode & 0o001
        for folder in folders
        for parent in (folder.absolute(), *folder.absolute().parents)
        if parent.exists()
    )
    return PACKAGE_USER if reachable else own


def access_file(prefix: str = "") -> str:
    """The access rules of `access.py` in mosquitto's own words."""
    start = _start(prefix)
    lines = ["# Written by `fleet broker config`."]
    for name, granted in SERVICE_ACCESS.items():
        lines += ["", f"user {name}"]
        lines += [f"topic read {start}{tree}" for tree in granted.reads]
        lines += [f"topic write {start}{tree}" for tree in granted.writes]
    lines += [
        "",
        "# Every node, %u being the CN of its certificate:",
        *(f"pattern write {start}{topic.format('%u')}" for topic in NODE_WRITES),
        *(f"pattern read {start}{topic.format('%u')}" for topic in NODE_READS),
    ]
    return "\n".join(lines) + "\n"


def broker_url(plan: MosquittoPlan) -> str:
    """What `FLEET_BROKER_URL` has to be for this broker."""
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    return f"mqtts://{host}:{plan.node_port}?service_port={plan.service_port}"


def _configuration(plan: MosquittoPlan, files: AuthorityFiles, folder: Path, user: str) -> str:
    bind = plan.host if is_loopback(plan.host) else ""
    text = f"""\
        # Written by `fleet broker config`; `fleet broker mosquitto` runs it, counts what it refuses and looks after revocations.
        # If something else starts it: every day, and after a revocation, kill -HUP the process named in {folder / STORE_FOLDER / PID_FILE}
        user {user}
        pid_file {folder / STORE_FOLDER / PID_FILE}
        log_dest stderr
        log_type error
        log_type warning
        log_type notice
        log_type information

        # What was not acknowledged survives a restart. Not after every change: that rewrites the whole file each time.
        persistence true
        persistence_location {folder / STORE_FOLDER}/
        autosave_interval 30

        # Ingest may be away for a while; a pack is about 250 bytes.
        max_queued_messages 100000
        max_inflight_messages 2000
        max_packet_size 65536
        set_tcp_nodelay true

        allow_anonymous false
        allow_zero_length_clientid false
        acl_file {folder / ACCESS_FILE}

        # Nodes: who connects is who the certificate says, and nobody can take another's client id.
        listener {plan.node_port} {bind}
        {_tls(files)}
        require_certificate true
        cafile {files.chain}
        crlfile {files.issuing.crl}
        use_identity_as_username true
        use_username_as_clientid true

        # Services: another authority, so that no node's certificate opens this door. Client ids are free here, because the
        # fleet ends a revoked node's session by taking its client id.
        listener {plan.service_port} {bind if plan.service_bind is None else plan.service_bind}
        {_tls(files)}
        require_certificate true
        cafile {files.services_authority.certificate}
        crlfile {files.services_authority.crl}
        use_identity_as_username true
    """
    return _tidy(text)


def _public_configuration(
    plan: MosquittoPlan, files: AuthorityFiles, folder: Path, *, user: str, prefix: str
) -> str:
    """A broker of its own: client ids are one space in a mosquitto, and whoever may choose one throws its owner out."""
    bind = plan.host if is_loopback(plan.host) else ""
    # It says that it is a bridge (`try_private`, the default), so that what is retained there is retained here.
    return _tidy(f"""\
        # Written by `fleet broker config`; start it with: mosquitto -c {folder / PUBLIC_CONFIGURATION_FILE}
        user {user}
        log_dest stderr
        persistence false
        allow_anonymous true
        acl_file {folder / PUBLIC_ACCESS_FILE}
        max_packet_size 65536
        max_queued_messages 1000

        # Anyone may read what is public, and nothing else.
        listener {plan.public_port} {bind}
        {_tls(files)}

        # It fetches that from the fleet's broker, as a service that may read nothing else.
        connection {SERVICE_PUBLIC}
        address {plan.host}:{plan.service_port}
        topic {_start(prefix)}{PUBLIC_TREE} in 1
        remote_clientid {SERVICE_PUBLIC}
        bridge_cafile {files.root_certificate}
        bridge_certfile {files.certificate(SERVICE_PUBLIC)}
        bridge_keyfile {files.key(SERVICE_PUBLIC)}
        bridge_protocol_version mqttv311
        cleansession true
        notifications false
        restart_timeout 1 30
    """)


def _tidy(text: str) -> str:
    lines = (line.strip() for line in dedent(text).replace("\n        ", "\n").splitlines())
    return "\n".join(lines).strip() + "\n"


def _tls(files: AuthorityFiles) -> str:
    """Server certificate and the oldest TLS that is spoken; one line each."""
    return "\n".join(
        (
            f"certfile {files.certificate('broker')}",
            f"keyfile {files.key('broker')}",
            "tls_version tlsv1.2",
        )
    )


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _hand_over(user: str, *, own: list[Path], readable: list[Path]) -> None:
    """Give `user` the folders and let it read the files, through its group."""
    entry = pwd.getpwnam(user)
    if entry.pw_uid == os.geteuid():
        return
    group = grp.getgrgid(entry.pw_gid).gr_name
    try:
        for path in (*own, *(kept for folder in own for kept in folder.iterdir())):
            shutil.chown(path, user, group)
        for path in readable:
            shutil.chown(path, group=group)
            path.chmod(_BROKER_MAY_READ_KEY)
    except PermissionError as problem:
        raise Invalid(f"Only root can prepare files for the user {user!r}.") from problem
