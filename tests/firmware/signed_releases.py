"""A signed repository of releases, made with python-tuf: what the release tools and the server do, in a few lines of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta

import cbor2
from securesystemslib.signer import CryptoSigner
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

from provisioning.firmware_bundle import FirmwareBundle

MODEL = "tree-3"


def manifest(bundle: FirmwareBundle, counter: int, **changes: object) -> bytes:
    """What a release is made of, as the wire spells it."""
    fields: dict[str, object] = {
        "format": 1,
        "version": bundle.version,
        "counter": counter,
        "models": [MODEL],
        "mpy": 6,
        "micropython": [1, 20, 0],
        "built_utc_s": bundle.built_at_utc_s,
        "allow_downgrade": False,
        "notes": "",
        "files": [
            [path, len(data), hashlib.sha256(data).digest()]
            for path, data in sorted(bundle.slot_files.items())
        ],
    }
    return cbor2.dumps(fields | changes)


def bundle_sha256(content: bytes) -> str:
    """By which a node's state names what it runs."""
    digest = hashlib.sha256()
    for path, size, sha256 in cbor2.loads(content)["files"]:
        digest.update(f"{path}\0{size}\0".encode() + sha256)
    return digest.hexdigest()


class SignedReleases:
    """Keys, roles and releases of one model; `files` is what the listener serves."""

    def __init__(self, now: datetime, scheme: str = "ecdsa") -> None:
        self.now = now
        make = {
            "ecdsa": CryptoSigner.generate_ecdsa,
            "rsa": lambda: CryptoSigner.generate_rsa(size=3072),
            "ed25519": CryptoSigner.generate_ed25519,
        }[scheme]
        names = ("root", "root2", "targets", "snapshot", "timestamp", MODEL)
        self.signers = {name: make() for name in names}
        self.files: dict[str, bytes] = {}
        self.bundles: list[tuple[FirmwareBundle, bytes]] = []
        until = now + timedelta(days=365)
        root = Root(expires=until, consistent_snapshot=True)
        for name in ("root", "root2", "targets", "snapshot", "timestamp"):
            root.add_key(self.signers[name].public_key, name.rstrip("2"))
        root.roles["root"].threshold = 2
        self.root = Metadata(root)
        role = DelegatedRole(MODEL, [], 1, True, paths=[f"{MODEL}/*"])
        targets = Targets(
            expires=until,
            delegations=Delegations({}, {MODEL: role}),
        )
        targets.add_key(self.signers[MODEL].public_key, MODEL)
        self.targets = Metadata(targets)
        self.role = Metadata(Targets(expires=until))
        self.snapshot = Metadata(Snapshot(expires=until))
        self.timestamp = Metadata(Timestamp(expires=now + timedelta(days=7)))
        self.sign_root()

    @property
    def first_root(self) -> bytes:
        return self.files["metadata/1.root.json"]

    def sign_root(self) -> None:
        self.root.signatures.clear()
        for name in ("root", "root2"):
            self.root.sign(self.signers[name], append=True)
        self.files[f"metadata/{self.root.signed.version}.root.json"] = self.root.to_bytes()

    def add(
        self,
        bundle: FirmwareBundle,
        counter: int,
        *,
        custom: Mapping[str, object] | None = None,
        **changes: object,
    ) -> str:
        """A release; the name of its target."""
        content = manifest(bundle, counter, **changes)
        target = f"{MODEL}/{bundle.version}.cbor"
        info = TargetFile.from_data(target, content, ["sha256"])
        info.unrecognized_fields["custom"] = custom or {"counter": counter, "model": MODEL}
        self.role.signed.targets[target] = info
        sha256 = hashlib.sha256(content).hexdigest()
        self.files[f"targets/{MODEL}/{sha256}.{bundle.version}.cbor"] = content
        data = b"".join(data for _, data in sorted(bundle.slot_files.items()))
        self.files[f"targets/bundles/{bundle_sha256(content)}"] = data
        return target

    def add_with_image(
        self,
        bundle: FirmwareBundle,
        counter: int,
        image: bytes,
        micropython: tuple[int, int, int],
        **changes: object,
    ) -> str:
        """A release that brings a whole MicroPython; the name of its target."""
        digest = hashlib.sha256(image)
        self.files[f"targets/files/{digest.hexdigest()}"] = image
        brought = [len(image), digest.digest(), list(micropython)]
        return self.add(bundle, counter, **{"format": 2, "image": brought, **changes})

    def publish(self) -> None:
        """Sign the model's role, targets, snapshot and timestamp, one version on."""
        for name, metadata in ((MODEL, self.role), ("targets", self.targets)):
            metadata.sign(self.signers[name])
            data = metadata.to_bytes()
            self.files[f"metadata/{metadata.signed.version}.{name}.json"] = data
            self.snapshot.signed.meta[f"{name}.json"] = MetaFile(metadata.signed.version)
        self.snapshot.sign(self.signers["snapshot"])
        version = self.snapshot.signed.version
        self.files[f"metadata/{version}.snapshot.json"] = self.snapshot.to_bytes()
        self.timestamp.signed.snapshot_meta = MetaFile(version)
        self.timestamp.sign(self.signers["timestamp"])
        self.files["metadata/timestamp.json"] = self.timestamp.to_bytes()

    def next(self) -> None:
        """The next versions of everything that is signed for each release."""
        for metadata in (self.role, self.snapshot, self.timestamp):
            metadata.signed.version += 1

    def replace_role_key(self) -> None:
        """The model's role is signed by another key from now on."""
        old, new = self.signers[MODEL].public_key, CryptoSigner.generate_ecdsa()
        self.targets.signed.revoke_key(old.keyid, MODEL)
        self.targets.signed.add_key(new.public_key, MODEL)
        self.signers[MODEL] = new

    def replace_timestamp_key(self) -> None:
        """The next root names another key for the timestamp."""
        old, new = self.signers["timestamp"].public_key, CryptoSigner.generate_ecdsa()
        self.root.signed.revoke_key(old.keyid, "timestamp")
        self.root.signed.add_key(new.public_key, "timestamp")
        self.signers["timestamp"] = new
        self.root.signed.version += 1
        self.sign_root()
