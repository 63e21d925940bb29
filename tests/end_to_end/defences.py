"""What stands against the attacks, how a test takes each out, and the table of what stops which.

On the embedded broker a defence is taken out by a subclass that overrides exactly its check, on mosquitto by changing exactly
its line of what `fleet broker config` writes. Nothing in the product knows how to be without it.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import attacks
from attacks import FLOOD, Cast, Scene
from brokers import (
    RunningBroker,
    free_port,
    mosquitto_plan,
    running_embedded,
    running_mosquitto,
    running_plain_mosquitto,
)

from fleet_server.broker import mosquitto
from fleet_server.broker.access import Client, ListenerName
from fleet_server.broker.embedded import (
    ConnectionRefused,
    EmbeddedBroker,
    Limits,
    PeerCertificate,
)
from fleet_server.broker.mosquitto_process import MosquittoProcess
from fleet_server.broker.refusals import Refusal

# Open files that mosquitto begins with, and those that the system would grant it.
_FILES, _MOST_FILES = FLOOD - 20, 2 * FLOOD


class Configuration:
    """What `fleet broker config` has written, to be changed line by line."""

    def __init__(self, path: Path, cast: Cast, *, public_port: int) -> None:
        self.cast = cast
        self.public_port = public_port
        self._path = path
        self._access = path.with_name(mosquitto.ACCESS_FILE)

    def change(self, setting: str, value: str | None, *, door: ListenerName | None = None) -> None:
        """Give one line of the file, or of one door in it, another value; None takes it out."""
        blocks = self._path.read_text().split("\nlistener ")
        at = (None, ListenerName.NODES, ListenerName.SERVICES).index(door)
        lines = blocks[at].split("\n")
        (number,) = [n for n, line in enumerate(lines) if line.startswith(f"{setting} ")]
        lines[number : number + 1] = [] if value is None else [f"{setting} {value}"]
        blocks[at] = "\n".join(lines)
        self._path.write_text("\nlistener ".join(blocks))

    def change_access(self, beginning: str, to: str) -> None:
        """Put one rule in the place of those that begin so."""
        lines = self._access.read_text().splitlines()
        kept = [line for line in lines if not line.startswith(beginning)]
        assert len(kept) < len(lines)
        self._access.write_text("\n".join([*kept, to]) + "\n")

    def append(self, text: str) -> None:
        with self._path.open("a") as file:
            file.write(text)

    def everybodys(self, name: str) -> Path:
        """One file of the certificates (or revocation lists) of all authorities, the strangers' too."""
        path = self._path.with_name(f"everybodys-{name}.pem")
        path.write_bytes(
            b"".join(file.read_bytes() for file in _of_all_authorities(self.cast, name))
        )
        return path


def _of_all_authorities(cast: Cast, name: str) -> list[Path]:
    ours, theirs = cast.certificates.files, cast.strangers.files
    if name == "crl":
        return [ours.issuing.crl, ours.services_authority.crl, theirs.issuing.crl]
    return [ours.chain, ours.services_authority.certificate, theirs.chain]


@dataclass(frozen=True, eq=False)
class Without:
    """What it means to be without a defence; what is not said is as usual."""

    embedded: type | None = None
    """Overrides of the embedded broker's checks."""
    limits: Limits = field(default_factory=Limits)
    mosquitto: Callable[[Configuration], None] | None = None
    process: type | None = None
    """Overrides of what looks after mosquitto."""
    scene: Callable[[Cast], Mapping[str, object]] = lambda _cast: {}


# --- overrides of single checks


class _AnybodyWrites:
    def may_publish(self, _client: Client, _topic: str) -> bool:
        return True


class _AnybodyReads:
    def may_subscribe(self, _client: Client, _topic_filter: str) -> bool:
        return True


class _NodesRetain:
    def may_retain(self, _client: Client) -> bool:
        return True


class _WillsAreFree:
    def may_leave_will(self, _client: Client, _topic: str, **_: bool) -> bool:
        return True


class _NamesAreFree(EmbeddedBroker):
    def certificate_of(self, writer: asyncio.StreamWriter) -> PeerCertificate:
        try:
            return super().certificate_of(writer)
        except ConnectionRefused:
            return PeerCertificate("", 0)

    def name_of(self, _certificate: PeerCertificate, client_id: str) -> str:
        return client_id


class _DoorsAreOpen:
    def check_door(self, _client: Client) -> None:
        pass


class _RevokedMayCome:
    def check_not_revoked(self, _listener: ListenerName, _certificate: PeerCertificate) -> None:
        pass


class _RevokedMayStay:
    def may_stay(self, _client: Client, _serial: int) -> bool:
        return True


class _CertificateIsOptional(EmbeddedBroker):
    def make_context(self, listener: ListenerName) -> ssl.SSLContext:
        context = super().make_context(listener)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


class _ListIsNotAsked(EmbeddedBroker):
    def make_context(self, listener: ListenerName) -> ssl.SSLContext:
        context = super().make_context(listener)
        context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF
        return context


class _EveryAuthorityIsTrusted(EmbeddedBroker):
    cast: Cast
    door: ListenerName

    def make_context(self, listener: ListenerName) -> ssl.SSLContext:
        context = super().make_context(listener)
        if listener is self.door:
            for name in ("certificates", "crl"):
                for path in _of_all_authorities(self.cast, name):
                    context.load_verify_locations(path)
        return context


class _TrustedAtTheNodesDoor(_EveryAuthorityIsTrusted):
    door = ListenerName.NODES


class _TrustedAtTheServicesDoor(_EveryAuthorityIsTrusted):
    door = ListenerName.SERVICES


class _ListsAreReadOnce:
    def hang_up(self) -> None:
        pass


class _FilesAreFew:
    def allow_many_connections(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_FILES, _MOST_FILES))


class _SessionsLiveOn(MosquittoProcess):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "end_session": lambda _client_id: None})


# --- changes of single lines


def _trust_everybody(door: ListenerName) -> Callable[[Configuration], None]:
    def change(configuration: Configuration) -> None:
        configuration.change("cafile", str(configuration.everybodys("certificates")), door=door)
        configuration.change("crlfile", str(configuration.everybodys("crl")), door=door)

    return change


def _line(
    setting: str, value: str | None, door: ListenerName | None = None
) -> Callable[[Configuration], None]:
    return lambda configuration: configuration.change(setting, value, door=door)


def _rule(beginning: str, to: str) -> Callable[[Configuration], None]:
    return lambda configuration: configuration.change_access(beginning, to)


def _open_the_public_door_here(configuration: Configuration) -> None:
    files = configuration.cast.certificates.files
    configuration.change("allow_anonymous", "true")
    configuration.append(
        f"\nlistener {configuration.public_port} 127.0.0.1\n"
        f"certfile {files.certificate('broker')}\nkeyfile {files.key('broker')}\n"
    )


_NODES = ListenerName.NODES


class Defence(Enum):
    """One thing that stands in the way; the first word is what docs/security/what_protects_what.md calls it."""

    WRITES_OWN = (
        "a node writes its three topics only",
        Without(embedded=_AnybodyWrites, mosquitto=_rule("pattern write", "pattern write #")),
    )
    READS_OWN = (
        "a node reads its two topics only",
        Without(embedded=_AnybodyReads, mosquitto=_rule("pattern read", "pattern read #")),
    )
    RETAINS_NOTHING = "a node retains nothing", Without(embedded=_NodesRetain)
    WILLS_OBEY = "a will obeys the same rules", Without(embedded=_WillsAreFree)
    CLIENT_ID = (
        "the client id is the certificate's name",
        Without(embedded=_NamesAreFree, mosquitto=_line("use_username_as_clientid", None, _NODES)),
    )
    USER = (
        "the user is the certificate's name",
        Without(mosquitto=_line("use_identity_as_username", None, _NODES)),
    )
    NO_ANONYMOUS = "nobody is anonymous", Without(mosquitto=_line("allow_anonymous", "true"))
    CERTIFICATE = (
        "a certificate is demanded",
        Without(
            embedded=_CertificateIsOptional, mosquitto=_line("require_certificate", "false", _NODES)
        ),
    )
    NODES_AUTHORITY = (
        "the nodes' door trusts the nodes' authority only",
        Without(embedded=_TrustedAtTheNodesDoor, mosquitto=_trust_everybody(_NODES)),
    )
    SERVICES_AUTHORITY = (
        "the services' door trusts the services' authority only",
        Without(
            embedded=_TrustedAtTheServicesDoor, mosquitto=_trust_everybody(ListenerName.SERVICES)
        ),
    )
    DOOR = "each door has its names", Without(embedded=_DoorsAreOpen)
    NAMES_SIGNED = (
        "the authority signs nodes' names only",
        Without(scene=lambda _cast: {"signs_every_name": True}),
    )
    OWN_WILDCARDS = "mosquitto itself gives nothing to a name with `+` or `#`", Without()
    SERVER_ONLY = (
        "a listener's certificate is good for servers only",
        Without(scene=lambda cast: {"listener_pair": cast.certificates.forged("localhost")}),
    )
    LIST_AT_HANDSHAKE = (
        "the revocation list at the handshake",
        Without(embedded=_ListIsNotAsked, mosquitto=_line("crlfile", None, _NODES)),
    )
    LIST_AT_CONNECT = "the revocation list at CONNECT", Without(embedded=_RevokedMayCome)
    LISTS_READ_AGAIN = (
        "a changed list is read at once (SIGHUP)",
        Without(process=_ListsAreReadOnce),
    )
    SESSIONS_END = (
        "live sessions of the revoked are ended",
        Without(embedded=_RevokedMayStay, process=_SessionsLiveOn),
    )
    GROUP_IS_SECRET = (
        "no node knows the name of ingest's group",
        Without(scene=lambda _cast: {"ingest_group": "ingest"}),
    )
    PUBLIC_APART = (
        "the public reads at a broker of its own",
        Without(mosquitto=_open_the_public_door_here),
    )
    PACKET_LIMIT = (
        "a packet has 64 KiB at most",
        Without(limits=Limits(packet_bytes=1_000_000), mosquitto=_line("max_packet_size", None)),
    )
    MANY_FILES = (
        "as many open files as the system grants",
        Without(process=_FilesAreFew),
    )

    def __init__(self, says: str, without: Without) -> None:
        self.says = says
        self.without = without

    def can_be_taken_out(self) -> bool:
        return self is not Defence.OWN_WILDCARDS


# --- the table


@dataclass(frozen=True)
class Stopped:
    """What stops an attack on one broker: each alone, so that it succeeds only when all are missing."""

    by: tuple[Defence, ...]
    counted_as: tuple[Refusal, ...]
    """One of these, as it comes; empty: no broker hears of it."""


@dataclass(frozen=True)
class Impossible:
    """Why there is nothing to attack on this broker."""

    because: str
    counted_as: tuple[Refusal, ...]
    """Empty: nothing to try, either."""


@dataclass(frozen=True)
class Row:
    """One attack on both brokers."""

    attack: Callable[[Scene], bool]
    embedded: Stopped | Impossible
    mosquitto: Stopped | Impossible

    @property
    def name(self) -> str:
        return self.attack.__name__

    def on(self, kind: str) -> Stopped | Impossible:
        return self.embedded if kind == "embedded" else self.mosquitto


def _alike(attack: Callable[[Scene], bool], *by: Defence, counted_as: Refusal) -> Row:
    return _row(attack, (by, counted_as), (by, counted_as))


def _row(
    attack: Callable[[Scene], bool],
    embedded: tuple[tuple[Defence, ...] | str, *tuple[Refusal, ...]],
    mosquitto: tuple[tuple[Defence, ...] | str, *tuple[Refusal, ...]],
) -> Row:
    return Row(attack, _stop(*embedded), _stop(*mosquitto))


def _stop(by: tuple[Defence, ...] | str, *counted_as: Refusal) -> Stopped | Impossible:
    return Impossible(by, counted_as) if isinstance(by, str) else Stopped(by, counted_as)


D, R = Defence, Refusal
TABLE = (
    _alike(attacks.publish_for_another, D.WRITES_OWN, counted_as=R.PUBLISH_DENIED),
    _row(
        attacks.publish_for_another_by_an_alias,
        ("speaks MQTT 3.1.1 only", R.PROTOCOL_UNSUPPORTED),
        ((D.WRITES_OWN,), R.PUBLISH_DENIED),
    ),
    _alike(attacks.publish_to_another, D.WRITES_OWN, counted_as=R.PUBLISH_DENIED),
    *(
        _row(
            attack,
            ((D.WRITES_OWN, D.RETAINS_NOTHING), R.PUBLISH_DENIED),
            ((D.WRITES_OWN,), R.PUBLISH_DENIED),
        )
        for attack in (
            attacks.retain_over_anothers_topic,
            attacks.erase_what_is_retained_for_another,
            attacks.retain_over_the_services_epoch,
            attacks.fill_the_store_under_ones_own_name,
        )
    ),
    _row(
        attacks.leave_a_will_for_another,
        ((D.WILLS_OBEY,), R.WILL_DENIED),
        ((D.WRITES_OWN,), R.WILL_DENIED),
    ),
    _alike(attacks.listen_to_everything, D.READS_OWN, counted_as=R.SUBSCRIBE_DENIED),
    _alike(attacks.read_what_is_retained_for_another, D.READS_OWN, counted_as=R.SUBSCRIBE_DENIED),
    _row(
        attacks.take_ingests_share,
        ("knows no groups",),
        ((D.GROUP_IS_SECRET,), R.SUBSCRIBE_DENIED),
    ),
    _row(
        attacks.take_anothers_client_id,
        ((D.CLIENT_ID,), R.CLIENT_ID_NOT_OWN),
        ((D.CLIENT_ID,), R.SUBSCRIBE_DENIED),
    ),
    _row(
        attacks.resume_anothers_session,
        ("keeps no sessions", R.CLIENT_ID_NOT_OWN),
        ((D.CLIENT_ID, D.READS_OWN), R.SUBSCRIBE_DENIED),
    ),
    _row(
        attacks.displace_a_node_by_the_public_door,
        ("has no public door",),
        ((D.PUBLIC_APART,),),
    ),
    _row(
        attacks.be_a_service_by_name,
        ((D.NAMES_SIGNED, D.DOOR),),
        ((D.NAMES_SIGNED,),),
    ),
    _row(
        attacks.be_everybody_by_a_wildcard_name,
        ((D.NAMES_SIGNED, D.DOOR),),
        ((D.NAMES_SIGNED, D.OWN_WILDCARDS),),
    ),
    _row(
        attacks.enter_by_the_services_door,
        ((D.SERVICES_AUTHORITY, D.DOOR), R.HANDSHAKE_FAILED),
        ((D.SERVICES_AUTHORITY,), R.HANDSHAKE_FAILED),
    ),
    _row(
        attacks.displace_ingest_by_the_services_door,
        ((D.SERVICES_AUTHORITY, D.CLIENT_ID), R.HANDSHAKE_FAILED),
        ((D.SERVICES_AUTHORITY,), R.HANDSHAKE_FAILED),
    ),
    _row(
        attacks.enter_the_nodes_door_as_a_service,
        ((D.NODES_AUTHORITY, D.DOOR), R.HANDSHAKE_FAILED),
        ((D.NODES_AUTHORITY,), R.HANDSHAKE_FAILED),
    ),
    _row(
        attacks.enter_without_certificate,
        ((D.CERTIFICATE, D.CLIENT_ID), R.HANDSHAKE_FAILED),
        ((D.CERTIFICATE, D.USER, D.CLIENT_ID, D.NO_ANONYMOUS), R.HANDSHAKE_FAILED),
    ),
    _alike(
        attacks.enter_with_a_strangers_certificate,
        D.NODES_AUTHORITY,
        counted_as=R.HANDSHAKE_FAILED,
    ),
    _alike(
        attacks.enter_with_the_brokers_own_certificate,
        D.SERVER_ONLY,
        counted_as=R.HANDSHAKE_FAILED,
    ),
    _row(
        attacks.enter_with_a_revoked_certificate,
        ((D.LIST_AT_HANDSHAKE, D.LIST_AT_CONNECT), R.HANDSHAKE_FAILED),
        ((D.LIST_AT_HANDSHAKE,), R.HANDSHAKE_FAILED),
    ),
    _row(
        attacks.come_back_after_revocation,
        ((D.LIST_AT_HANDSHAKE, D.LIST_AT_CONNECT), R.CERTIFICATE_REVOKED, R.HANDSHAKE_FAILED),
        ((D.LISTS_READ_AGAIN,), R.HANDSHAKE_FAILED),
    ),
    _alike(attacks.stay_after_revocation, D.SESSIONS_END, counted_as=R.CERTIFICATE_REVOKED),
    _alike(attacks.publish_more_than_the_limit, D.PACKET_LIMIT, counted_as=R.PACKET_TOO_LARGE),
    _alike(attacks.announce_more_than_the_limit, D.PACKET_LIMIT, counted_as=R.PACKET_TOO_LARGE),
    _row(
        attacks.keep_the_services_out_by_a_flood,
        ("serves this machine only",),
        ((D.MANY_FILES,),),
    ),
)


# --- a broker with everything, or without some of it


@dataclass(frozen=True)
class Stage:
    """A running broker, and what else of the scene depends on the defences that are missing."""

    broker: RunningBroker
    public_port: int | None
    changes: Mapping[str, object]


@contextmanager
def running_without(
    kind: str, missing: tuple[Defence, ...], cast: Cast, folder: Path
) -> Iterator[Stage]:
    """A broker of this kind without these defences, and with all others."""
    changes = {name: value for one in missing for name, value in one.without.scene(cast).items()}
    with ExitStack() as stack:
        if kind == "embedded":
            broker = stack.enter_context(_embedded_without(missing, cast))
            yield Stage(broker, None, changes)
        else:
            real, public_port = stack.enter_context(_mosquitto_without(missing, cast, folder))
            yield Stage(real, public_port, changes)


@contextmanager
def _embedded_without(missing: tuple[Defence, ...], cast: Cast) -> Iterator[RunningBroker]:
    overrides = [one.without.embedded for one in missing if one.without.embedded]
    kind = type("LessGuarded", (*overrides, EmbeddedBroker), {"cast": cast})
    limits = max((Limits(), *(one.without.limits for one in missing)), key=_packet_bytes)
    with running_embedded(cast.certificates, kind=kind, limits=limits) as broker:
        yield broker


@contextmanager
def _mosquitto_without(
    missing: tuple[Defence, ...], cast: Cast, folder: Path
) -> Iterator[tuple[RunningBroker, int]]:
    public_port = free_port()
    plan = mosquitto_plan(folder, public_port=public_port)
    path = mosquitto.write_configuration(plan, cast.certificates.files)
    doors = mosquitto.doors_of(path)
    configuration = Configuration(path, cast, public_port=public_port)
    for one in missing:
        if one.without.mosquitto:
            one.without.mosquitto(configuration)
    overrides = [one.without.process for one in missing if one.without.process]
    kind = type("LessCareful", (*overrides, _WithFewFiles), {})
    with ExitStack() as stack:
        real = stack.enter_context(
            running_mosquitto(cast.certificates, path, doors=doors, kind=kind)
        )
        if Defence.PUBLIC_APART not in missing:
            public = path.with_name(mosquitto.PUBLIC_CONFIGURATION_FILE)
            stack.enter_context(running_plain_mosquitto(public, port=public_port))
        yield real, public_port


def _packet_bytes(limits: Limits) -> int:
    return limits.packet_bytes


class _WithFewFiles(MosquittoProcess):
    """As on any system, but with numbers that a test can reach."""

    def allow_many_connections(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_FILES, _MOST_FILES))
        super().allow_many_connections(pid)
