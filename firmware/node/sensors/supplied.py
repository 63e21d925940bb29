"""What every driver of a probe with a supply of its own has in common: it is switched on, waited for, read, switched off."""

import time

from node.power import Supply


class Supplied:
    def __init__(self, pins, options):
        self._pins = pins
        self._options = options
        self._supply = Supply(pins)
        self._since_ms = 0
        self._wait_ms = 0

    def start(self, now_ms):
        """Switch the probe on."""
        self._supply.on()
        self._wait(now_ms, self._options["warm_up_ms"])

    def ready_in(self, now_ms):
        return max(0, self._wait_ms - time.ticks_diff(now_ms, self._since_ms))

    def stop(self):
        self._supply.off()

    def _wait(self, now_ms, duration_ms):
        self._since_ms = now_ms
        self._wait_ms = duration_ms
