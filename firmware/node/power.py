"""The only way into deep sleep, and what has to be off before."""

import sys

import machine

from node import rtc_memory

_SHORTEST_MS = 1_000
_LONGEST_MS = 86_400_000

_rails = []  # type: list[int]


def rail(pin):
    """Switch on the supply rail behind a GPIO; `sleep` makes sure that it goes off."""
    if pin not in _rails:
        _rails.append(pin)
    machine.Pin(pin, machine.Pin.OUT, value=1)


def rail_off(pin):
    machine.Pin(pin, machine.Pin.OUT, value=0)


def sleep(state, duration_ms):
    """Radio off, rails low, memory kept, then deep sleep. Does not return."""
    if "node.link.wifi" in sys.modules:
        # Only who loaded it can have switched the radio on.
        from node.link import wifi

        wifi.off()
    for pin in _rails:
        rail_off(pin)
    rtc_memory.store(state)
    machine.deepsleep(max(_SHORTEST_MS, min(duration_ms, _LONGEST_MS)))
