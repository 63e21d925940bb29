"""Names that node, server, database and pages share. The only part of the wire that models may import."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """Why a channel could not be read: what the node sends instead of a value."""

    ABSENT = "absent"  # nothing answers where the probe should be
    TIMEOUT = "timeout"  # it answered too late
    CRC = "crc"  # what it sent was damaged
    POWER_ON_RESET = "por"  # the probe's power-on value, twice in a row
    RANGE = "range"  # outside what the probe can measure
    SHORT = "short"  # the line is shorted
    OPEN = "open"  # the line is broken
    SPREAD = "spread"  # repeated readings of one instant disagree
    FRAME = "frame"  # an answer of another shape
    ERROR = "error"  # anything else


MAX_REASON_LENGTH = 7


class QualityFlag(IntEnum):
    """QARTOD's flags (IOOS, Manual for Real-Time Quality Control: primary level)."""

    GOOD = 1
    NOT_EVALUATED = 2
    SUSPECT = 3
    BAD = 4
    MISSING = 9


class BatteryLevel(StrEnum):
    """What a node goes without to spare its battery, as its event `battery` says."""

    NORMAL = "normal"
    LOW = "low"  # publishes once in BATTERY_LOW_PERIODS publishing intervals
    MUTE = "mute"  # leaves its radio off, samples on
    STOP = "stop"  # does nothing until it is charged


BATTERY_LOW_PERIODS = 4


class Slot(StrEnum):
    """One of the two copies of the firmware on a node."""

    A = "a"
    B = "b"


class SlotState(StrEnum):
    """Whether the running copy is trusted yet."""

    CONFIRMED = "confirmed"
    TRIAL = "trial"


class UpdateStage(StrEnum):
    """What a node tells of an update that it was given (event `update`), in the order in which it happens; then how it may end."""

    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"  # every file is on flash and is what the release keys have signed
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    TESTING = "testing"  # the new version has begun its first wake
    ALREADY_INSTALLED = "already_installed"
    REJECTED = "rejected"  # the node does not take it; the reason says why
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"  # the version before runs again
    CANCELED = "canceled"


class SlotReason(StrEnum):
    """Why a node went back to the version before."""

    CRASHED = "crashed"
    HUNG = "hung"
    NEVER_SLEPT = "never slept"
    NO_RECEIPT = "no receipt"  # the broker let it in, and nothing that it said was stored
    BROKE = "broke"  # a step of its wakes failed by itself
    WRONG_CLOCK = "wrong clock"
    TOO_LONG = "too long"  # 72 hours without two receipts


class ConfigState(StrEnum):
    """How a node stands to the configuration that was desired last."""

    CONFIRMED = "confirmed"  # it holds
    TRIAL = "trial"  # it holds until the server was heard under it, or until it failed
    ROLLED_BACK = "rolled_back"  # it failed; the one before holds
    REFUSED = "refused"  # the node cannot take it; the one before holds


class NodeState(StrEnum):
    """Where a node stands in its life; which way leads from one to another is in `services.node_life`."""

    REGISTERED = "registered"  # in the list before it is built
    FLASHED = "flashed"  # the board carries the firmware
    ENROLLING = "enrolling"  # has its identity, was never heard
    ENROLLED = "enrolled"  # was heard under its identity, stands nowhere
    CALIBRATED = "calibrated"  # its probes were compared with a reference
    DEPLOYED = "deployed"
    MAINTENANCE = "maintenance"  # at its site, and somebody works on it
    RETIRED = "retired"
    # Beside that road:
    QUARANTINED = "quarantined"  # not trusted until somebody has looked at it
    LOST = "lost"
    RMA = "rma"  # at its maker's, or on the way there
    REVOKED = "revoked"  # its certificate is void for ever
