"""What makes a repository of releases one that nodes can take: The Update Framework 1.0 with our own conventions on top.

Bytes and a clock in, verified content out; python-tuf does the cryptography. The bench asks before it publishes, the server before it
takes, both in the same words. Conventions: `root` wants two signatures at least; `targets` names no target and delegates `<model>/*` to
one terminating role per node model; such a role's targets are manifests (`<model>/<version>.cbor`) and parts lists (`….cdx.json`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Key, SSlibKey
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from fleet_server.wire.errors import RepositoryWrong, WireError
from fleet_server.wire.manifest import (
    TARGET_SUFFIX,
    Manifest,
    decode_manifest,
    is_version,
    target_path,
)

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
TOP_LEVEL = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
LEAST_ROOT_THRESHOLD = 2
MOST_METADATA_BYTES = 128 * 1024
_MOST_BYTES = {
    ROOT: 32 * 1024,
    TARGETS: MOST_METADATA_BYTES,
    SNAPSHOT: 32 * 1024,
    TIMESTAMP: 8 * 1024,
}
"""What a node takes of each kind (firmware/node/update/tuf.py)."""
SCHEMES = ("rsassa-pss-sha256", "ecdsa-sha2-nistp256", "ed25519", "rsa-pkcs1v15-sha256")
"""What a node verifies."""
HOLDERS = "x-holders"
"""In what a delegator signs: who holds which key, for people."""
SBOM_SUFFIX = ".cdx.json"

_MODEL = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MOST_VERSION = 2**31 - 1
T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True)
class SignatureState:
    """Who signed a role's metadata: ids of keys whose signature is valid, of those that count and have not signed, how many are wanted."""

    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    threshold: int


@dataclass(frozen=True)
class NamedTargets:
    """The targets of one release: its manifest, and its parts list where there is one."""

    model: str
    version: str
    counter: int
    allow_downgrade: bool
    manifest: TargetFile
    sbom: TargetFile | None


@dataclass(frozen=True)
class Repository:
    """Everything that is signed offline, verified."""

    roots: tuple[Metadata[Root], ...]
    targets: Metadata[Targets]
    roles: Mapping[str, Metadata[Targets]]

    @property
    def root(self) -> Metadata[Root]:
        """The newest one."""
        return self.roots[-1]


# ------------------------------------------------------------------------------------------------------------- reading


def read(data: bytes, kind: type[T], *, what: str) -> Metadata[T]:
    """Metadata of this kind, not yet verified; `what` is what a sentence calls it.

    Raises:
        RepositoryWrong: it is none, or is spelt otherwise than python-tuf does: a node reads bytes, not what they mean.
    """
    metadata = _read_any(data, what=what)
    if not isinstance(metadata.signed, kind):
        _wrong(
            "%(what)s is %(kind)s, not %(wanted)s.",
            what=what,
            kind=metadata.signed.type,
            wanted=kind.type,
        )
    if len(data) > _MOST_BYTES[kind.type]:
        _wrong(
            "%(what)s has %(size)s bytes; nodes take %(most)s at most.",
            what=what,
            size=len(data),
            most=_MOST_BYTES[kind.type],
        )
    return metadata


def kind_and_version(data: bytes) -> tuple[str, int]:
    """Kind and version that metadata say they have; nothing is verified. Raises RepositoryWrong: they are none."""
    signed = _read_any(data, what="The file").signed
    return signed.type, signed.version


def _read_any(data: bytes, *, what: str) -> Metadata[Any]:
    if len(data) > MOST_METADATA_BYTES:
        _wrong(
            "%(what)s has %(size)s bytes; nodes take %(most)s at most.",
            what=what,
            size=len(data),
            most=MOST_METADATA_BYTES,
        )
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        spelt = metadata.to_bytes()
    except (DeserializationError, ValueError, TypeError, RecursionError) as error:
        raise RepositoryWrong("%(what)s is no TUF metadata.", what=what) from error
    if spelt != data:
        _wrong("%(what)s is not spelt as python-tuf writes it.", what=what)
    if not 1 <= metadata.signed.version <= _MOST_VERSION:
        _wrong("%(what)s has version %(version)s.", what=what, version=metadata.signed.version)
    return metadata


# ----------------------------------------------------------------------------------------------------------- verifying


def verify_repository(
    roots: Sequence[bytes],
    targets: bytes,
    roles: Mapping[str, bytes],
    *,
    now: datetime,
    trusted: bytes | None = None,
) -> Repository:
    """All that a node would verify, and our conventions.

    Args:
        roots: one after the other; the first is trusted, or follows `trusted`, or is the trusted one itself.
        roles: metadata by the name of the delegated role.
        trusted: the root that is trusted already.

    Raises:
        RepositoryWrong: something would be refused; names it.
    """
    chain = verify_roots(roots, trusted=trusted)
    check_fresh(chain[-1].signed, now, what=f"root {chain[-1].signed.version}")
    verified = verify_targets(chain[-1].signed, targets, now=now)
    return Repository(
        roots=chain,
        targets=verified,
        roles={
            name: verify_role(verified.signed, name, data, now=now)
            for name, data in sorted(roles.items())
        },
    )


def verify_roots(
    roots: Sequence[bytes], *, trusted: bytes | None = None
) -> tuple[Metadata[Root], ...]:
    """The chain of roots, each signed by the keys of the one before and by its own (TUF 1.0 §5.3).

    Raises:
        RepositoryWrong: one does not follow.
    """
    data = list(roots)
    if trusted is not None and trusted not in data[:1]:
        data.insert(0, trusted)
    if not data:
        _wrong("There is no root.")
    chain: list[Metadata[Root]] = []
    for one in data:
        root = read(one, Root, what="The root")
        what = f"root {root.signed.version}"
        if chain and root.signed.version != chain[-1].signed.version + 1:
            _wrong(
                "%(what)s does not follow root %(before)s.",
                what=what,
                before=chain[-1].signed.version,
            )
        missing = root_signatures(root, chain[-1] if chain else None)
        for state in missing:
            if len(state.signed) < state.threshold:
                _too_few(what, state)
        check_root(root.signed)
        chain.append(root)
    return tuple(chain)


def root_signatures(
    root: Metadata[Root], previous: Metadata[Root] | None
) -> tuple[SignatureState, SignatureState]:
    """Who signed a root: of the keys of the one before, and of its own."""
    try:
        result = root.signed.get_root_verification_result(
            previous.signed if previous else None, root.signed_bytes, root.signatures
        )
    except ValueError as error:
        raise RepositoryWrong(
            "root %(version)s names no keys of its own.", version=root.signed.version
        ) from error
    return tuple(  # type: ignore[return-value] # two of them
        SignatureState(tuple(one.signed), tuple(one.unsigned), one.threshold)
        for one in (result.first, result.second)
    )


def check_root(root: Root) -> None:
    """Our conventions. Raises RepositoryWrong."""
    what = f"root {root.version}"
    if not root.consistent_snapshot:
        _wrong("%(what)s does not ask for consistent snapshots.", what=what)
    threshold = root.roles[ROOT].threshold
    if threshold < LEAST_ROOT_THRESHOLD:
        _wrong(
            "%(what)s wants %(threshold)s signature; %(least)s at least are asked of a root.",
            what=what,
            threshold=threshold,
            least=LEAST_ROOT_THRESHOLD,
        )
    for name in TOP_LEVEL:
        _check_keys(
            root.keys, root.roles[name].keyids, root.roles[name].threshold, what=f"{what}, {name}"
        )


def verify_targets(root: Root, data: bytes, *, now: datetime) -> Metadata[Targets]:
    """The top-level targets. Raises RepositoryWrong: also when a convention is broken."""
    targets = read(data, Targets, what="targets")
    what = f"targets {targets.signed.version}"
    _check_signed(root, TARGETS, targets, what=what)
    check_fresh(targets.signed, now, what=what)
    check_targets(targets.signed)
    return targets


def check_targets(targets: Targets) -> None:
    """Our conventions. Raises RepositoryWrong."""
    what = f"targets {targets.version}"
    if targets.targets:
        _wrong("%(what)s names targets itself; only the roles of node models do.", what=what)
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        _wrong("%(what)s delegates to no role by name.", what=what)
    for name, role in delegations.roles.items():
        if not is_role_of_model(name):
            _wrong(
                "%(what)s delegates to %(name)r, which is called as no node model is.",
                what=what,
                name=name,
            )
        if role.paths != [f"{name}/*"] or role.path_hash_prefixes is not None:
            _wrong(
                "%(what)s lets %(name)s sign other targets than %(name)s/*.", what=what, name=name
            )
        if not role.terminating:
            _wrong("%(what)s does not end the search at %(name)s.", what=what, name=name)
        _check_keys(delegations.keys, role.keyids, role.threshold, what=f"{what}, {name}")


def verify_role(targets: Targets, name: str, data: bytes, *, now: datetime) -> Metadata[Targets]:
    """A model's role, against its current delegator. Raises RepositoryWrong: also when a convention is broken."""
    if not is_role_of_model(name):
        _wrong("%(name)r is no role of a node model.", name=name)
    role = read(data, Targets, what=name)
    what = f"{name} {role.signed.version}"
    _check_signed(targets, name, role, what=what)
    check_fresh(role.signed, now, what=what)
    if role.signed.delegations is not None:
        _wrong("%(what)s delegates further.", what=what)
    releases_of(name, role.signed)
    return role


def role_signatures(
    delegator: Root | Targets, name: str, metadata: Metadata[Any]
) -> SignatureState:
    """Who signed a role's metadata, of the keys that its delegator names. Raises RepositoryWrong: it names none."""
    try:
        result = delegator.get_verification_result(name, metadata.signed_bytes, metadata.signatures)
    except ValueError as error:
        raise RepositoryWrong(
            "Nobody may sign %(name)s: its delegator does not know it.", name=name
        ) from error
    return SignatureState(tuple(result.signed), tuple(result.unsigned), result.threshold)


def releases_of(name: str, role: Targets) -> dict[str, NamedTargets]:
    """Releases that a model's role signs, by version.

    Raises:
        RepositoryWrong: a target is neither a manifest nor a parts list, or says something else than its manifest has to.
    """
    what = f"{name} {role.version}"
    found: dict[str, NamedTargets] = {}
    for path, target in sorted(role.targets.items()):
        _check_target(path, target, what=what)
        model, _, file = path.partition("/")
        if model != name:
            _wrong("%(what)s names %(path)s, which is not its own.", what=what, path=path)
        if file.endswith(SBOM_SUFFIX):
            continue
        version = file.removesuffix(TARGET_SUFFIX)
        if not file.endswith(TARGET_SUFFIX) or not is_version(version):
            _wrong("%(what)s names %(path)s, which is no manifest.", what=what, path=path)
        found[version] = _named(name, version, target, role, what=what)
    for path in role.targets:
        version = path.partition("/")[2].removesuffix(SBOM_SUFFIX)
        if path.endswith(SBOM_SUFFIX) and version not in found:
            _wrong("%(what)s names %(path)s without its release.", what=what, path=path)
    counters = sorted(release.counter for release in found.values())
    if len(set(counters)) != len(counters):
        _wrong("%(what)s has two releases of one counter.", what=what)
    return found


def _named(
    name: str, version: str, target: TargetFile, role: Targets, *, what: str
) -> NamedTargets:
    custom = target.custom
    if not isinstance(custom, dict) or not set(custom) <= {"counter", "model", "allow_downgrade"}:
        _wrong(
            "%(what)s says something else of %(version)s than counter and model.",
            what=what,
            version=version,
        )
    counter, downgrade = custom.get("counter"), custom.get("allow_downgrade", False)
    if (
        type(counter) is not int
        or not 1 <= counter < 2**32
        or custom.get("model") != name
        or type(downgrade) is not bool
    ):
        _wrong(
            "%(what)s gives %(version)s a counter or model that cannot be.",
            what=what,
            version=version,
        )
    return NamedTargets(
        model=name,
        version=version,
        counter=counter,
        allow_downgrade=downgrade,
        manifest=target,
        sbom=role.targets.get(f"{name}/{version}{SBOM_SUFFIX}"),
    )


def check_manifest(named: NamedTargets, data: bytes) -> Manifest:
    """The manifest that a target names, held to hash, length and what the role says of it.

    Raises:
        RepositoryWrong: it is another, or says something else.
    """
    path = target_path(named.model, named.version)
    check_target_bytes(named.manifest, data)
    try:
        manifest = decode_manifest(data)
    except WireError as error:
        raise RepositoryWrong("%(path)s: %(why)s", path=path, why=error.sentence) from error
    told = (manifest.version, manifest.counter, manifest.models, manifest.allow_downgrade)
    if told != (named.version, named.counter, (named.model,), named.allow_downgrade):
        _wrong(
            "%(path)s says another version, counter or model than the role that signs it.",
            path=path,
        )
    return manifest


def check_target_bytes(target: TargetFile, data: bytes) -> None:
    """Raises RepositoryWrong: these are not the bytes that the target names."""
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise RepositoryWrong(
            "%(path)s is not what was signed: length or hash differs.", path=target.path
        ) from error


def check_fresh(signed: Signed, now: datetime, *, what: str) -> None:
    """Raises RepositoryWrong: it has expired."""
    if signed.is_expired(now):
        _wrong(
            "%(what)s expired on %(day)s; sign it anew.",
            what=what,
            day=f"{signed.expires:%Y-%m-%d}",
        )


def is_role_of_model(name: str) -> bool:
    """Whether a delegated role can be called so."""
    return _MODEL.fullmatch(name) is not None and len(name) <= 32 and name not in TOP_LEVEL


def delegated(targets: Targets) -> Mapping[str, DelegatedRole]:
    """The roles of node models by name."""
    return (targets.delegations.roles or {}) if targets.delegations else {}


def holders(signed: Signed) -> dict[str, str]:
    """Who holds which key, as the delegator says; by key id."""
    told = signed.unrecognized_fields.get(HOLDERS)
    if not isinstance(told, dict):
        return {}
    return {keyid: str(name) for keyid, name in told.items()}


def check_key(key: Key, *, what: str) -> None:
    """Raises RepositoryWrong: no node could verify with it, or its id is not its own."""
    if not isinstance(key, SSlibKey) or key.scheme not in SCHEMES:
        _wrong(
            "%(what)s names a key of %(scheme)s; nodes verify %(schemes)s.",
            what=what,
            scheme=key.scheme,
            schemes=", ".join(SCHEMES),
        )
    # Two ids for one key would be a threshold of two that one person reaches.
    if key.keyid != key_id(key):
        _wrong("%(what)s names a key under an id that is not its own.", what=what)


def key_id(key: SSlibKey) -> str:
    """SHA-256 of the key's canonical form (TUF 1.0 §4.2): what its id has to be."""
    told = {"keytype": key.keytype, "keyval": key.keyval, "scheme": key.scheme}
    return hashlib.sha256(str(encode_canonical(told)).encode()).hexdigest()


def _check_keys(
    keys: Mapping[str, Key], keyids: Sequence[str], threshold: int, *, what: str
) -> None:
    if len(set(keyids)) < threshold:
        _wrong(
            "%(what)s: %(threshold)s signatures are wanted of %(keys)s keys.",
            what=what,
            threshold=threshold,
            keys=len(set(keyids)),
        )
    for keyid in keyids:
        if keyid not in keys:
            _wrong("%(what)s names a key that is not there.", what=what)
        check_key(keys[keyid], what=what)


def _check_signed(
    delegator: Root | Targets, name: str, metadata: Metadata[Any], *, what: str
) -> None:
    state = role_signatures(delegator, name, metadata)
    if len(state.signed) < state.threshold:
        _too_few(what, state)


def _check_target(path: str, target: TargetFile, *, what: str) -> None:
    if set(target.hashes) != {"sha256"} or target.length < 1:
        _wrong("%(what)s gives %(path)s no SHA-256 or no length.", what=what, path=path)


def _too_few(what: str, state: SignatureState) -> NoReturn:
    _wrong(
        "%(what)s has %(signed)s of %(threshold)s signatures by the keys that count.",
        what=what,
        signed=len(state.signed),
        threshold=state.threshold,
    )


def _wrong(template: str, **parts: object) -> NoReturn:
    raise RepositoryWrong(template, **parts)


# ---------------------------------------------------------------------------------------------------- what servers sign


def snapshot_of(
    targets: bytes, roles: Mapping[str, bytes], *, version: int, expires: datetime
) -> Metadata[Snapshot]:
    """The snapshot of these, unsigned."""
    meta = {"targets.json": _meta(targets)}
    meta |= {f"{name}.json": _meta(data) for name, data in sorted(roles.items())}
    return Metadata(Snapshot(version=version, expires=expires, meta=meta))


def timestamp_of(snapshot: bytes, *, version: int, expires: datetime) -> Metadata[Timestamp]:
    """The timestamp of this snapshot, unsigned."""
    return Metadata(Timestamp(version=version, expires=expires, snapshot_meta=_meta(snapshot)))


def _meta(data: bytes) -> MetaFile:
    return MetaFile.from_data(kind_and_version(data)[1], data, ["sha256"])
