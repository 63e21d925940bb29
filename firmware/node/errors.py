"""What can go wrong on a node, by name. The reasons stand on the wire in place of a value; the server knows the same ten."""

from micropython import const

ABSENT = const("absent")
TIMEOUT = const("timeout")
CRC = const("crc")
POWER_ON_RESET = const("por")
RANGE = const("range")
SHORT = const("short")
OPEN = const("open")
SPREAD = const("spread")
FRAME = const("frame")
ERROR = const("error")

REASONS = (ABSENT, TIMEOUT, CRC, POWER_ON_RESET, RANGE, SHORT, OPEN, SPREAD, FRAME, ERROR)


class SensorError(Exception):
    """A probe could not be read; `code` is one of the reasons."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class LinkError(Exception):
    """The node could not talk; the text is short enough for the state message."""


class TimedOut(LinkError):
    """A deadline passed."""


class NotProvisioned(Exception):
    """The node has no identity or no configuration."""


class Refused(Exception):
    """What was fetched is not to be trusted; the text is a reason of `fleet_server/wire/update_reasons.py`."""
