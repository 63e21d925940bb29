"""A repository for a trial or a demo: everybody's keys are in one folder, and everything is signed at once. Never for a city."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Targets

from fleet_server.wire import signed_releases
from fleet_server.wire.signed_releases import ROOT
from hardware.catalogue import node_model_ids
from provisioning.release_building import Build, build_release, sign_release
from provisioning.release_ceremony import Signatories, begin, sign_drafts
from provisioning.release_folder import ReleaseFolder
from provisioning.release_keys import (
    CARD_SUFFIX,
    KEY_SUFFIX,
    KeyCard,
    make_key,
    open_signer,
    read_card,
    write_card,
)

_ROOTS, _TARGETS, _AUTHOR = ("first-root", "second-root"), "targets", "releases"
_SUPPORT = timedelta(days=365)


@dataclass(frozen=True)
class Trial:
    """Every step is safe to repeat, also after it was cut short."""

    folder: ReleaseFolder
    keys: Path
    passphrase: str
    kind: str
    now: datetime
    lifetime: timedelta
    _made: dict[str, PrivateKeyTypes] = field(default_factory=dict)
    """By holder: what was just locked need not be unlocked, which takes long on purpose."""

    def begin(self, online: Mapping[str, KeyCard]) -> None:
        """Make the keys, and sign who may sign what."""
        cards = {holder: self._card(holder) for holder in (*_ROOTS, _TARGETS, _AUTHOR)}
        if not self.folder.versions(ROOT) and self.folder.draft(ROOT) is None:
            signatories = {name: Signatories([card], 1) for name, card in online.items()}
            signatories["root"] = Signatories([cards[holder] for holder in _ROOTS], len(_ROOTS))
            signatories["targets"] = Signatories([cards[_TARGETS]], 1)
            models = dict.fromkeys(node_model_ids(), Signatories([cards[_AUTHOR]], 1))
            begin(self.folder, signatories, models, now=self.now, lifetime=self.lifetime)
        for holder in (*_ROOTS, _TARGETS):
            if self.folder.drafts():
                sign_drafts(self.folder, cards[holder], partial(self._signer, cards[holder]))

    def release_once(self) -> None:
        """Build and sign the firmware that is here, unless this version is signed already."""
        version = installed_version("stadtsensor")
        counters = self._counters()
        models = [model for model in node_model_ids() if version not in counters.get(model, {})]
        if not models:
            return
        wanted = Build(
            version=version,
            counter=1 + max((n for known in counters.values() for n in known.values()), default=0),
            built_utc_s=int(self.now.timestamp()),
            support_until=(self.now + _SUPPORT).date(),
            notes="What these nodes were flashed with.",
        )
        build_release(self.folder, wanted, models)
        card = self._card(_AUTHOR)
        sign_release(
            self.folder,
            version,
            card,
            partial(self._signer, card),
            models=models,
            now=self.now,
            lifetime=self.lifetime,
        )

    def _counters(self) -> dict[str, dict[str, int]]:
        roles = {
            model: signed_releases.read(data, Targets, what=model).signed
            for model, data in self.folder.roles().items()
        }
        return {
            model: {
                one.version: one.counter
                for one in signed_releases.releases_of(model, role).values()
            }
            for model, role in roles.items()
        }

    def _card(self, holder: str) -> KeyCard:
        path = self.keys / f"{holder}{CARD_SUFFIX}"
        if not path.exists():
            path.with_suffix(KEY_SUFFIX).unlink(missing_ok=True)  # of a trial that was cut short
            card, private_key = make_key(self.kind, holder)
            write_card(card, self.keys, private_key, self.passphrase)
            self._made[holder] = private_key
        return read_card(path)

    def _signer(self, card: KeyCard) -> Signer:
        if card.holder in self._made:
            return CryptoSigner(self._made[card.holder], card.key)
        return open_signer(card, lambda _: self.passphrase)
