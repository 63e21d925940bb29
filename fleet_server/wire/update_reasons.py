"""Why a node refuses what a repository offers, in the node's own words; its client makes no others (firmware/node/update/tuf.py)."""

from __future__ import annotations

_ROLES = ("root", "timestamp", "snapshot", "targets")
_FAULTS = ("malformed", "missing", "hash", "signature", "version", "expired")

REASONS = (
    *(f"{role} {fault}" for role in _ROLES for fault in _FAULTS),
    *(f"{role} rolled back" for role in _ROLES[1:]),
    "endless data",
    "too many delegations",
)
"""Of a role its kind is told: `targets` stands for every role that is delegated to, too."""
