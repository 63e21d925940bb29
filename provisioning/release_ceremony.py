"""Who may sign what: the first root, and every change of it. What is changed is a draft until as many have signed as have to.

`root` names the keys of the four top-level roles, `targets` those of each node model's role. A change goes into the one draft of the
role that it is about, so several changes can be signed at once. Nobody has to be there at the same time: a draft is a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, Targets

from fleet_server.wire import signed_releases
from fleet_server.wire.errors import RepositoryWrong
from fleet_server.wire.signed_releases import (
    HOLDERS,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TOP_LEVEL,
    SignatureState,
    delegated,
    holders,
    is_role_of_model,
)
from provisioning.errors import BenchError, UsedWrongly
from provisioning.release_folder import ReleaseFolder
from provisioning.release_keys import KeyCard, add_signature

LIFETIME = timedelta(days=365)
"""Of what is signed offline, where nobody says otherwise."""


@dataclass(frozen=True)
class Signatories:
    """Who may sign for a role, and how many of them have to."""

    cards: Sequence[KeyCard]
    threshold: int


@dataclass(frozen=True)
class Waiting:
    """A draft: who signed it and who may still, by the names of the holders, and how many signatures are missing.

    A root is signed by keys of two roots, so it can miss signatures of either.
    """

    name: str
    version: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    missing: int


# ----------------------------------------------------------------------------------------------------------- beginning


def begin(
    folder: ReleaseFolder,
    signatories: Mapping[str, Signatories],
    models: Mapping[str, Signatories],
    *,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> None:
    """Draft the first root and the first targets.

    Args:
        signatories: of the four top-level roles.
        models: of each node model's role.

    Raises:
        UsedWrongly: too few keys for a threshold, or there is a repository.
    """
    if folder.versions(ROOT) or folder.draft(ROOT) is not None:
        raise UsedWrongly(f"There is a repository in {folder.path} already.")
    expires = _end(now, lifetime)
    root = Root(version=1, expires=expires, consistent_snapshot=True)
    for name in TOP_LEVEL:
        _name(root, signatories[name].cards)
        for card in signatories[name].cards:
            root.add_key(card.key, name)
        root.roles[name].threshold = signatories[name].threshold
    targets = Targets(version=1, expires=expires, delegations=Delegations(keys={}, roles={}))
    for model, who in sorted(models.items()):
        _delegate(targets, model, who)
    _check(lambda: signed_releases.check_root(root))
    _check(lambda: signed_releases.check_targets(targets))
    folder.write_draft(TARGETS, Metadata(targets).to_bytes())
    folder.write_draft(ROOT, Metadata(root).to_bytes())


def _delegate(targets: Targets, model: str, who: Signatories) -> None:
    role = DelegatedRole(
        name=model, keyids=[], threshold=who.threshold, terminating=True, paths=[f"{model}/*"]
    )
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise BenchError("These targets delegate to no role by name; they were not made here.")
    delegations.roles[model] = role
    _name(targets, who.cards)
    for card in who.cards:
        targets.add_key(card.key, model)


# ------------------------------------------------------------------------------------------------------------ changing


def add_key(folder: ReleaseFolder, role: str, card: KeyCard, *, now: datetime) -> None:
    """One more key may sign for `role`; a node model that nobody signs for yet gets its role with this key."""

    def change(signed: Root | Targets) -> None:
        if isinstance(signed, Targets) and role not in delegated(signed):
            _delegate(signed, role, Signatories([card], 1))
            return
        if card.keyid in _role(signed, role).keyids:
            raise UsedWrongly(f"The key of {card.holder} signs for {role} already.")
        _name(signed, [card])
        signed.add_key(card.key, role)

    _change(folder, role, change, now=now)


def remove_key(folder: ReleaseFolder, role: str, keyid: str, *, now: datetime) -> None:
    """A key, named by the beginning of its id or by its holder, signs for `role` no more."""

    def change(signed: Root | Targets) -> None:
        whole = find_key(signed, role, keyid)
        signed.revoke_key(whole, role)
        _forget_unused(signed)

    _change(folder, role, change, now=now)


def replace_key(
    folder: ReleaseFolder, role: str, keyid: str, card: KeyCard, *, now: datetime
) -> None:
    """Another key signs for `role` in the place of one; the threshold stays."""

    def change(signed: Root | Targets) -> None:
        whole = find_key(signed, role, keyid)
        if card.keyid in _role(signed, role).keyids:
            raise UsedWrongly(f"The key of {card.holder} signs for {role} already.")
        signed.revoke_key(whole, role)
        _name(signed, [card])
        signed.add_key(card.key, role)
        _forget_unused(signed)

    _change(folder, role, change, now=now)


def set_threshold(folder: ReleaseFolder, role: str, threshold: int, *, now: datetime) -> None:
    """So many have to sign for `role` from now on."""

    def change(signed: Root | Targets) -> None:
        _role(signed, role).threshold = threshold

    _change(folder, role, change, now=now)


def set_online(folder: ReleaseFolder, cards: Mapping[str, KeyCard], *, now: datetime) -> None:
    """The server has other keys for snapshot and timestamp."""

    def change(signed: Root | Targets) -> None:
        for role, card in cards.items():
            for keyid in list(_role(signed, role).keyids):
                signed.revoke_key(keyid, role)
            _name(signed, [card])
            signed.add_key(card.key, role)
        _forget_unused(signed)

    _change(folder, SNAPSHOT, change, now=now)


def renew(
    folder: ReleaseFolder, name: str, *, now: datetime, lifetime: timedelta = LIFETIME
) -> None:
    """A new version of a role, good until later; nothing else in it changes."""
    if name in (SNAPSHOT, TIMESTAMP):
        raise UsedWrongly(f"{name} is renewed by the server, by itself.")
    if name in (ROOT, TARGETS):
        _change(folder, name, lambda _: None, now=now, lifetime=lifetime, is_own=True)
        return
    if folder.draft(name) is not None:
        raise UsedWrongly(f"A draft of {name} waits for signatures; finish or discard it first.")
    data = folder.newest(name)
    if data is None:
        raise UsedWrongly(f"Nothing of {name} is signed yet.")
    role = signed_releases.read(data, Targets, what=name)
    role.signed.version += 1
    role.signed.expires = _end(now, lifetime)
    role.signatures.clear()
    folder.write_draft(name, role.to_bytes())


def discard(folder: ReleaseFolder, name: str) -> None:
    """Drop a draft with its signatures. Raises UsedWrongly: there is none."""
    if folder.draft(name) is None:
        raise UsedWrongly(f"No draft of {name} waits.")
    folder.drop_draft(name)


def _change(
    folder: ReleaseFolder,
    role: str,
    change: Callable[[Root | Targets], None],
    *,
    now: datetime,
    lifetime: timedelta = LIFETIME,
    is_own: bool = False,
) -> None:
    """Change the delegator of `role` (or, `is_own`, the role itself) in its draft, which loses its signatures."""
    folder.check_begun()
    name = role if is_own else ROOT if role in TOP_LEVEL else TARGETS
    if name == TARGETS and not is_own and not is_role_of_model(role):
        raise UsedWrongly(f"{role!r} is neither a role nor a node model.")
    metadata = _next(folder, name)
    change(metadata.signed)
    metadata.signed.expires = _end(now, lifetime)
    check = signed_releases.check_root if name == ROOT else signed_releases.check_targets
    _check(lambda: check(metadata.signed))
    metadata.signatures.clear()
    folder.write_draft(name, metadata.to_bytes())


def _next(folder: ReleaseFolder, name: str) -> Metadata[Any]:
    """The draft, or what follows the newest version."""
    kind: type[Any] = Root if name == ROOT else Targets
    waiting = folder.draft(name)
    if waiting is not None:
        return signed_releases.read(waiting, kind, what=f"The draft of {name}")
    newest = folder.newest(name)
    if newest is None:
        raise UsedWrongly(f"There is no {name} in {folder.path}.")
    metadata: Metadata[Any] = signed_releases.read(newest, kind, what=name)
    metadata.signed.version += 1
    return metadata


def find_key(signed: Root | Targets, role: str, named: str) -> str:
    """The id of a key of `role`, by the beginning of it or by its holder. Raises UsedWrongly: none, or several."""
    known = holders(signed)
    keyids = _role(signed, role).keyids
    found = [
        keyid
        for keyid in keyids
        if known.get(keyid) == named or (len(named) >= 6 and keyid.startswith(named))
    ]
    if len(found) != 1:
        there = ", ".join(f"{known.get(keyid, '?')} ({keyid[:12]})" for keyid in keyids)
        raise UsedWrongly(
            f"{named} names {'several keys' if found else 'no key'} of {role}; there are {there}."
        )
    return found[0]


def _role(signed: Root | Targets, role: str) -> Role:
    try:
        return signed.get_delegated_role(role)
    except ValueError as error:
        raise UsedWrongly(f"Nobody signs for {role} yet; add its first key.") from error


def _name(signed: Root | Targets, cards: Sequence[KeyCard]) -> None:
    told = holders(signed) | {card.keyid: card.holder for card in cards}
    signed.unrecognized_fields[HOLDERS] = told


def _forget_unused(signed: Root | Targets) -> None:
    keys = (
        signed.keys
        if isinstance(signed, Root)
        else (signed.delegations and signed.delegations.keys) or {}
    )
    signed.unrecognized_fields[HOLDERS] = {
        keyid: name for keyid, name in holders(signed).items() if keyid in keys
    }


def _check(check: Callable[[], None]) -> None:
    try:
        check()
    except RepositoryWrong as problem:
        raise UsedWrongly(f"That cannot be: {problem}") from problem


def _end(now: datetime, lifetime: timedelta) -> datetime:
    return (now + lifetime).replace(microsecond=0)


# ------------------------------------------------------------------------------------------------------------- signing


def sign_drafts(
    folder: ReleaseFolder, card: KeyCard, signer: Callable[[], Signer], *, names: Sequence[str] = ()
) -> list[Waiting]:
    """Sign every draft (or only those named) that this key counts for and has not signed; what is complete takes effect.

    Returns:
        How each of them stands now; `missing` is 0 where it is complete.

    Raises:
        BenchError: the key counts for nothing that waits.
    """
    folder.check_begun()
    made: Signer | None = None
    result = []
    for name in names or tuple(folder.drafts()):
        data = folder.draft(name)
        if data is None and names:
            raise UsedWrongly(f"No draft of {name} waits.")
        if data is None:  # it waited only for the one before, and has taken effect with it
            continue
        states = _states(folder, name, data)
        if all(card.keyid not in state.unsigned for state in states):
            continue
        made = made or signer()
        metadata = _read_draft(name, data)
        add_signature(metadata, made)
        folder.write_draft(name, metadata.to_bytes())
        result.append(finish_if_complete(folder, name))
    if not result:
        waiting = ", ".join(folder.drafts()) or "nothing"
        raise BenchError(
            f"The key of {card.holder} signs nothing here: what waits is {waiting}, and it has signed that or does not count for it."
        )
    return [finish_if_complete(folder, one.name) if one.missing else one for one in result]


def finish_if_complete(folder: ReleaseFolder, name: str) -> Waiting:
    """How a draft stands; it takes effect when those whom the delegator in effect names have signed."""
    data = folder.draft(name)
    if data is None:  # it has taken effect in the same breath
        return Waiting(name, folder.versions(name)[-1], (), (), 0)
    waiting = _waiting(folder, name, data)
    if _is_complete(folder, name, data):
        folder.finish_draft(name, waiting.version, data)
        for other in folder.drafts():  # what waited only for this
            finish_if_complete(folder, other)
        return replace(waiting, missing=0)
    return waiting


def waiting(folder: ReleaseFolder) -> list[Waiting]:
    """Every draft, and what it misses."""
    return [_waiting(folder, name, data) for name, data in folder.drafts().items()]


def _is_complete(folder: ReleaseFolder, name: str, data: bytes) -> bool:
    if name == ROOT:
        return all(_missing(state) == 0 for state in _root_states(folder, data))
    above = folder.newest(_above(name))
    return above is not None and _missing(_state(name, data, above)) == 0


def _waiting(folder: ReleaseFolder, name: str, data: bytes) -> Waiting:
    states = _states(folder, name, data)
    known = _holders_around(folder)

    def names(keyids: set[str]) -> tuple[str, ...]:
        return tuple(sorted(f"{known.get(keyid, '?')} ({keyid[:12]})" for keyid in keyids))

    count = max if name == ROOT else min
    return Waiting(
        name=name,
        version=_read_draft(name, data).signed.version,
        signed=names({keyid for state in states for keyid in state.signed}),
        unsigned=names({keyid for state in states if _missing(state) for keyid in state.unsigned}),
        missing=count(_missing(state) for state in states),
    )


def _states(folder: ReleaseFolder, name: str, data: bytes) -> Sequence[SignatureState]:
    """Whose signatures a draft wants: a root's of both; another's of the delegator in effect, or of the one in draft."""
    if name == ROOT:
        return _root_states(folder, data)
    above = _above(name)
    delegators = [one for one in (folder.newest(above), folder.draft(above)) if one is not None]
    states = []
    for delegator in delegators:
        with suppress(RepositoryWrong):  # a role that only one of them knows
            states.append(_state(name, data, delegator))
    if not states:
        raise BenchError(f"No {above} in {folder.path} says who may sign {name}.")
    return states


def _root_states(folder: ReleaseFolder, data: bytes) -> Sequence[SignatureState]:
    before = folder.newest(ROOT)
    previous = signed_releases.read(before, Root, what="root") if before else None
    return signed_releases.root_signatures(_read_draft(ROOT, data), previous)


def _state(name: str, data: bytes, delegator: bytes) -> SignatureState:
    return signed_releases.role_signatures(
        _read_draft(_above(name), delegator).signed, name, _read_draft(name, data)
    )


def _above(name: str) -> str:
    return ROOT if name == TARGETS else TARGETS


def _missing(state: SignatureState) -> int:
    return max(0, state.threshold - len(state.signed))


def _read_draft(name: str, data: bytes) -> Metadata[Any]:
    kind: type[Any] = Root if name == ROOT else Targets
    metadata: Metadata[Any] = signed_releases.read(data, kind, what=f"The {name} in this folder")
    return metadata


def _holders_around(folder: ReleaseFolder) -> dict[str, str]:
    known: dict[str, str] = {}
    for name in (ROOT, TARGETS):
        for data in (folder.newest(name), folder.draft(name)):
            if data is not None:
                known |= holders(_read_draft(name, data).signed)
    return known


# ---------------------------------------------------------------------------------------------------------- describing


def describe(folder: ReleaseFolder, name: str) -> list[str]:
    """What a draft would change, one line each: read before signing."""
    data = folder.draft(name)
    if data is None:
        return []
    new = _read_draft(name, data).signed
    before = folder.newest(name)
    old = _read_draft(name, before).signed if before else None
    lines = [f"{name} {new.version}: good until {new.expires:%Y-%m-%d}"]
    if name in (ROOT, TARGETS):
        lines += _changed_keys(new, old)
    else:
        there = set(old.targets) if old else set()
        lines += [f"+ {path}" for path in sorted(set(new.targets) - there)]
        lines += [f"- {path}" for path in sorted(there - set(new.targets))]
    return lines


def _changed_keys(new: Root | Targets, old: Root | Targets | None) -> list[str]:
    lines = []
    known = holders(new) | (holders(old) if old else {})
    before = roles_of(old) if old else {}
    for role, who in roles_of(new).items():
        earlier = before.get(role)
        if earlier is None or earlier.threshold != who.threshold:
            lines.append(f"  {role}: {who.threshold} of {len(who.keyids)} have to sign")
        there = set(earlier.keyids) if earlier else set()
        lines += [
            f"{sign} {role}: {known.get(keyid, '?')} ({keyid[:12]})"
            for sign, keyids in (("+", set(who.keyids) - there), ("-", there - set(who.keyids)))
            for keyid in sorted(keyids)
        ]
    return lines


def roles_of(signed: Root | Targets) -> Mapping[str, Role]:
    """The roles that a delegator names."""
    return signed.roles if isinstance(signed, Root) else delegated(signed)


def standing(folder: ReleaseFolder, *, now: datetime) -> list[str]:
    """What is signed, until when, and what has to be signed anew, one sentence each."""
    lines = []
    names = [name for name in (ROOT, TARGETS, *folder.roles()) if folder.newest(name) is not None]
    for name in names:
        data = folder.newest(name)
        assert data is not None  # noqa: S101 - just listed
        metadata = _read_draft(name, data)
        left = metadata.signed.expires - now
        state = "has expired" if left <= timedelta() else f"is good for {left.days} days more"
        lines.append(f"{name} {metadata.signed.version} {state}.")
        lines += _no_longer_signed(folder, name, metadata)
    return lines


def _no_longer_signed(folder: ReleaseFolder, name: str, metadata: Metadata[Any]) -> list[str]:
    """When the delegator named other keys since."""
    above = {ROOT: None, TARGETS: ROOT}.get(name, TARGETS)
    newest = folder.newest(above) if above else None
    if above is None or newest is None:
        return []
    try:
        state = signed_releases.role_signatures(_read_draft(above, newest).signed, name, metadata)
    except RepositoryWrong as problem:
        return [str(problem)]
    if len(state.signed) >= state.threshold:
        return []
    return [
        f"{name} has {len(state.signed)} of {state.threshold} signatures of the keys that {above} names now: give it a new version"
        f" with provision release root renew {name}."
    ]
