"""Repositories of The Update Framework for tests, made by python-tuf and in memory, and a node that looks at many of them in a row."""

from __future__ import annotations

import datetime
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from provisioning.tuf_board import TRUSTED, Job, Outcome, make_board, running

NOW_S = 1_790_000_000
EXPIRES = datetime.datetime.fromtimestamp(NOW_S, datetime.UTC) + datetime.timedelta(days=30)
TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")
_T = TypeVar("_T")

# Of each kind a few, made when first asked for: every repository gets its own from these.
_made: dict[str, list[CryptoSigner]] = {}
_MAKERS: dict[str, Callable[[], CryptoSigner]] = {
    "ecdsa": CryptoSigner.generate_ecdsa,
    "ed25519": CryptoSigner.generate_ed25519,
    "rsa": lambda: CryptoSigner.generate_rsa(size=2048),
    "rsa-3072": lambda: CryptoSigner.generate_rsa(size=3072),
    "rsa-pkcs1": lambda: CryptoSigner.generate_rsa(size=2048, scheme="rsa-pkcs1v15-sha256"),
}


def signer(number: int, kind: str = "rsa-pkcs1") -> CryptoSigner:
    """One of a kind, always the same for a number."""
    made = _made.setdefault(kind, [])
    while len(made) <= number:
        made.append(_MAKERS[kind]())
    return made[number]


class TufRepository:
    """Top-level roles with a key each, `targets` delegating `tree-3/*` to the role `tree-3`; everything published in version 1.

    Change `signed[role]`, then `publish` the roles; what is served lies in `files` and can be tampered with.
    """

    def __init__(
        self,
        kind: str = "rsa-pkcs1",
        releases: int = 2,
        expires: datetime.datetime = EXPIRES,
    ) -> None:
        self._expires = expires
        self.signed: dict[str, Any] = {
            "root": Root(expires=expires),
            "timestamp": Timestamp(expires=expires),
            "snapshot": Snapshot(expires=expires),
            "targets": Targets(expires=expires, delegations=Delegations({}, {})),
        }
        self.signers: dict[str, list[Signer]] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.has_hashes = False
        self._versions: dict[str, int] = {}
        self._reading = b""
        self._next_signer, self._kind = 0, kind
        for role in TOP_LEVEL:
            self.add_key("root", role)
        self.delegate("targets", "tree-3", paths=["tree-3/*"])
        for number in range(releases):
            self.add_target("tree-3", f"tree-3/0.{number}.0.cbor", counter=number + 1)
        self.publish("tree-3", *TOP_LEVEL[1:], "root")

    # --- what is in it ---

    def new_signer(self) -> CryptoSigner:
        self._next_signer += 1
        return signer(self._next_signer - 1, self._kind)

    def add_key(self, delegator: str, role: str, key: CryptoSigner | None = None) -> CryptoSigner:
        """Let one more key sign for a role."""
        key = key or self.new_signer()
        self.signed[delegator].add_key(key.public_key, role)
        self.signers.setdefault(role, []).append(key)
        return key

    def replace_keys(self, role: str) -> None:
        """Take a top-level role's keys away and give it another."""
        for key_id in list(self.signed["root"].roles[role].keyids):
            self.signed["root"].revoke_key(key_id, role)
        self.signers[role] = []
        self.add_key("root", role)

    def delegate(
        self, delegator: str, role: str, *, is_last: bool = False, **to: list[str] | None
    ) -> None:
        """Delegate `paths` or `path_hash_prefixes` to a role with a key of its own."""
        delegations = self.signed[delegator].delegations or Delegations({}, {})
        self.signed[delegator].delegations = delegations
        delegations.roles[role] = DelegatedRole(role, [], 1, is_last, **to)
        self.signed.setdefault(role, Targets(expires=self._expires))
        self.add_key(delegator, role)

    def add_target(self, role: str, path: str, content: bytes = b"x", **custom: Any) -> None:
        target = TargetFile.from_data(path, content, ["sha256"])
        target.unrecognized_fields["custom"] = {"model": "tree-3", **custom}
        self.signed[role].targets[path] = target

    # --- what it serves ---

    def publish(self, *roles: str) -> None:
        """Sign and serve the next version of these roles; what names them follows, as far as it is published too."""
        for role in roles:
            if role in self._versions:
                self.signed[role].version += 1
            self._versions[role] = self.signed[role].version
            self.serve(role, self.sign(role))

    def sign(self, role: str) -> bytes:
        """A role's metadata, signed by all of its signers."""
        metadata = Metadata(self.signed[role])
        for key in self.signers[role]:
            metadata.sign(key, append=True)
        return metadata.to_bytes(JSONSerializer())

    def serve(self, role: str, content: bytes) -> None:
        """Serve this as the role's present version, and let the snapshot or timestamp name it."""
        version = self.signed[role].version
        hashes = {"sha256": _sha256(content)} if self.has_hashes else None
        named = MetaFile(version, len(content) if self.has_hashes else None, hashes)
        if role == "snapshot":
            self.signed["timestamp"].snapshot_meta = named
        elif role not in ("root", "timestamp"):
            self.signed["snapshot"].meta[f"{role}.json"] = named
        if role == "timestamp":
            self.files["timestamp.json"] = content
        elif role == "root" or self.signed["root"].consistent_snapshot:
            self.files[f"{version}.{role}.json"] = content
        else:
            self.files[f"{role}.json"] = content

    def tampered(self, role: str, change: Callable[[dict[str, Any]], None]) -> bytes:
        """A role's metadata with its content changed past python-tuf's checks, and signed with that in it."""
        signed = json.loads(self.sign(role))["signed"]
        change(signed)
        return self.signed_anew(role, signed)

    def signed_anew(self, role: str, signed: dict[str, Any]) -> bytes:
        """Whatever this is, signed by the role's signers."""
        canonical = canonical_json(signed)
        signatures = [key.sign(canonical).to_dict() for key in self.signers[role]]
        return json.dumps({"signatures": signatures, "signed": signed}, sort_keys=True).encode()

    # --- as the board reads it ---

    def open(self, name: str) -> bool:
        self.asked.append(name)
        self._reading = self.files.get(name, b"")
        return name in self.files

    def read(self, size: int) -> bytes:
        piece, self._reading = self._reading[:size], self._reading[size:]
        return piece


def canonical_json(value: Any) -> bytes:
    """Canonical JSON (OLPC), for values that securesystemslib's own encoder refuses to write."""
    if isinstance(value, dict):
        items = (canonical_json(key) + b":" + canonical_json(value[key]) for key in sorted(value))
        return b"{" + b",".join(items) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical_json, value)) + b"]"
    if isinstance(value, str):
        return b'"' + value.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
    return json.dumps(value).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class TufNode:
    """A board that is on all the time, and whose client is given one repository after the other."""

    def __init__(self, folder: Path) -> None:
        self._board = make_board(folder, {"root.json": b""}, now_s=NOW_S)
        self._asked: queue.Queue[Job | Callable[[], Any] | None] = queue.Queue()
        self._answered: queue.Queue[Any] = queue.Queue()
        self._is_on = threading.Event()
        self._thread = threading.Thread(target=self._live, name="tuf-node", daemon=True)
        self._thread.start()
        self._is_on.wait(60)

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join(10)

    def trust(self, root: bytes, held: dict[str, bytes] | None = None) -> None:
        """Forget everything else, and trust this root (and hold these files)."""
        files = {"root.json": root, **(held or {})}

        def begin_anew() -> None:
            file_system = self._run._mounted()
            for path, _ in file_system.walk(TRUSTED):
                file_system.unlink(path)
            for name, content in files.items():
                file_system.write_file(f"{TRUSTED}/{name}", content)

        self._do(begin_anew)

    def work(self, repository: TufRepository, target: str = "", *, after_s: int = 0) -> Outcome:
        """Refresh from this repository, then look for the target if one is named."""
        self._run.repository = repository
        outcome: Outcome = self._ask(Job(NOW_S + after_s, target))
        return outcome

    def held(self) -> dict[str, bytes]:
        """The files that it trusts, by name."""

        def read() -> dict[str, bytes]:
            file_system = self._run._mounted()
            paths = [path for path, _ in file_system.walk(TRUSTED) if path.endswith(".json")]
            return {path.rpartition("/")[2]: file_system.read_file(path) for path in paths}

        return self._do(read)

    def versions(self) -> dict[str, int]:
        """Version of every role that it trusts."""
        return {
            name.removesuffix(".json"): json.loads(content)["signed"]["version"]
            for name, content in self.held().items()
        }

    def _do(self, action: Callable[[], _T]) -> _T:
        result: _T = self._ask(action)
        return result

    def _ask(self, what: Job | Callable[[], Any]) -> Any:
        assert self._thread.is_alive(), "the node's machine has ended"
        self._asked.put(what)
        answer = self._answered.get(timeout=60)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _live(self) -> None:
        nothing = _Nothing()
        try:
            with running(
                self._board, nothing, next_job=self._next, done=self._answered.put
            ) as self._run:
                self._is_on.set()
                self._run.work()
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            self._answered.put(error)

    def _next(self) -> Job | None:
        while callable(what := self._asked.get()):
            try:
                self._answered.put(what())
            except OSError as error:
                self._answered.put(error)
        return what


class _Nothing:
    def open(self, _name: str) -> bool:
        return False

    def read(self, _size: int) -> bytes:
        return b""


def refreshed(node: TufNode, repository: TufRepository) -> None:
    """The node trusts this repository's first root, and is up to date."""
    node.trust(repository.files["1.root.json"])
    assert node.work(repository) == Outcome(None, None, None, True)


def without(content: bytes, *names: str) -> bytes:
    """Metadata without its signatures of these key ids."""
    document = json.loads(content)
    document["signatures"] = [one for one in document["signatures"] if one["keyid"] not in names]
    return json.dumps(document, sort_keys=True).encode()


def key_ids(signers: Iterable[Signer]) -> list[str]:
    return [one.public_key.keyid for one in signers]


def other_id(key: Key, key_id: str) -> Key:
    """The same key under another id."""
    return Key.from_dict(key_id, key.to_dict())
