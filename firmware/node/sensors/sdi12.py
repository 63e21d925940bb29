"""A sensor on SDI-12, described by its options: which of its values are wanted, with how many decimals, within which range.

A concurrent one measures while its neighbours on the wire do; else it holds the wire until it says that it is ready.
"""

import time

from node import errors
from node.bus.sdi12 import Sdi12, scaled
from node.sensors.supplied import Supplied


class Sdi12Probe(Supplied):
    """`options`: uart, address, concurrent, warm_up_ms; by channel: fields (positions in the answer), decimals, lowest, highest."""

    def __init__(self, pins, options):
        super().__init__(pins, options)
        self._count = None

    def ready_in(self, now_ms):
        return max(0, self._wait_ms - time.ticks_diff(now_ms, self._since_ms))

    def read(self, deadline):
        """An integer in units of 10^−decimals, or a reason, for each channel; None while a concurrent measurement runs.

        Raises SensorError: absent, timeout, crc, frame, error.
        """
        bus = Sdi12(self._pins, self._options["uart"])
        try:
            if self._options["concurrent"] and self._count is None:
                self._start_concurrent(bus, deadline)
                return None
            texts = self._values(bus, deadline)
        finally:
            bus.close()
        options = self._options
        return [
            _checked(texts, field, decimals, lowest, highest)
            for field, decimals, lowest, highest in zip(
                options["fields"], options["decimals"], options["lowest"], options["highest"]
            )
        ]

    def _start_concurrent(self, bus, deadline):
        seconds, self._count = bus.start(self._options["address"], "CC", deadline)
        self._wait(time.ticks_ms(), seconds * 1000)

    def _values(self, bus, deadline):
        address = self._options["address"]
        count = self._count
        if count is None:
            seconds, count = bus.start(address, "MC", deadline)
            bus.await_request(address, seconds, deadline)
        return bus.values(address, count, deadline)


def _checked(texts, field, decimals, lowest, highest):
    if field >= len(texts):
        return errors.FRAME
    number = scaled(texts[field], decimals)
    return number if lowest <= number <= highest else errors.RANGE


Driver = Sdi12Probe
