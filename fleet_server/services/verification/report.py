"""What `fleet verify` counts, and the sentences that say where."""

from __future__ import annotations

from dataclasses import dataclass, field

_FINDINGS_MAX = 100


@dataclass
class Report:
    """What was counted. `findings` says in sentences where, the first hundred of them.

    `gaps`: sequence numbers that never came and were not declared lost, and gap rows that cannot be true.
    `packs_damaged`: packs and what is read from them (raw readings, events, times), quarantined messages.
    `receipts_wrong`: receipts, and the outbox rows that carry them.
    `observations_not_reproducible`: observations, lineages, calibrations that do not give them, and wrong counts of them.
    """

    packs: int = 0
    gaps: int = 0
    declared_lost: int = 0
    duplicates: int = 0
    readings_without_observation: int = 0
    packs_damaged: int = 0
    receipts_wrong: int = 0
    observations_not_reproducible: int = 0
    audit_chain_ok: bool = True
    observations: int = 0  # made again; not among the stable counts
    versions: int = 0  # replaced ones, likewise
    waiting: int = 0  # values that a revision has still to look at
    tests_proved: int = 0  # replaced versions whose filled tests were made again
    tests_kept: int = 0  # those of which that was not possible
    notes: list[str] = field(default_factory=list)  # what is no fault, and should be known
    _found: list[tuple[str, str]] = field(default_factory=list, init=False, repr=False)

    def counts(self) -> dict[str, int | bool]:
        """The counts by their stable names."""
        return {name: getattr(self, name) for name in _COUNTS}

    @property
    def is_clean(self) -> bool:
        """True when nothing is wrong. Packs that the node declared lost are lost, but accounted for."""
        faults = [getattr(self, name) for name in _COUNTS if name not in _NO_FAULTS]
        return self.audit_chain_ok and not any(faults)

    def find(self, kind: str, sentence: str, *, count: int = 1) -> None:
        """Count a fault and say where it is."""
        setattr(self, kind, getattr(self, kind) + count)
        self.say(kind, sentence)

    def say(self, kind: str, sentence: str) -> None:
        """Say where it is. Of each kind the first hundred: many of one must not hide another."""
        if sum(found == kind for found, _ in self._found) < _FINDINGS_MAX:
            self._found.append((kind, sentence))

    @property
    def findings(self) -> list[str]:
        """Sentences, as they were found."""
        return [sentence for _, sentence in self._found][:_FINDINGS_MAX]

    def findings_of(self, *kinds: str) -> list[str]:
        """Those of these kinds."""
        return [sentence for kind, sentence in self._found if kind in kinds][:_FINDINGS_MAX]


_COUNTS = (
    "packs",
    "gaps",
    "declared_lost",
    "duplicates",
    "readings_without_observation",
    "packs_damaged",
    "receipts_wrong",
    "observations_not_reproducible",
    "audit_chain_ok",
)
_NO_FAULTS = ("packs", "declared_lost", "audit_chain_ok")
