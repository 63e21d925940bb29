"""What may go wrong with a virtual node on demand: how often, and what it does to one boot."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hardware.virtual_board.flash import PowerCutPlan
from hardware.virtual_board.network import NetworkPolicy

FAULTS: Mapping[str, str] = {
    "power_cut": "the power fails at some flash operation",
    "no_wifi": "the access point is not there",
    "refused": "the broker's computer refuses the connection",
    "half_open": "the connection dies silently after some bytes (costs seconds of real time)",
    "slow": "every exchange takes 0.2 s longer (costs seconds of real time)",
    "no_time": "the time server is silent",
    "wrong_time": "the time server is off by a day",
}
"""Kind of fault → what happens in a boot that has it."""

# A sampling wake programs the flash some ten times, a publishing one some more.
_FLASH_OPERATIONS_PER_WAKE = 24
# TLS alone sends some 1,500 bytes; a day's packs some 15,000.
_BYTES_BEFORE_SILENCE = 6000
_SLOW_MS = 200
_WRONG_S = 86_400


class Misfortune:
    """Draws each boot's faults by their rates (0 to 1); the same seed draws the same."""

    def __init__(self, rates: Mapping[str, float], seed: str) -> None:
        self._rates = rates
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def power_cut(self) -> PowerCutPlan | None:
        """Where the next boot's power fails, if it does."""
        if not self._strikes("power_cut"):
            return None
        return PowerCutPlan(
            at_operation=self._random.randint(1, _FLASH_OPERATIONS_PER_WAKE),
            torn=self._random.random() < 0.5,
        )

    def network_policy(self) -> NetworkPolicy:
        """How the network treats the next boot."""
        policy = NetworkPolicy()
        if self._strikes("no_wifi"):
            policy.wifi = "absent"
        if self._strikes("refused"):
            policy.tcp = "refused"
        if self._strikes("half_open"):
            policy.drop_after_sent = self._random.randrange(_BYTES_BEFORE_SILENCE)
        if self._strikes("slow"):
            policy.delay_ms = _SLOW_MS
        if self._strikes("no_time"):
            policy.ntp = "silent"
        if self._strikes("wrong_time"):
            policy.ntp, policy.ntp_error_s = "wrong", self._random.choice((-_WRONG_S, _WRONG_S))
        return policy

    def _strikes(self, kind: str) -> bool:
        rate = self._rates.get(kind, 0.0)
        return rate > 0 and self._random.random() < rate
