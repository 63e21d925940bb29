"""The only way into deep sleep, and what has to be off before."""

import sys

import esp32
import machine

from node import rtc_memory

_SHORTEST_MS = 1_000
_LONGEST_MS = 86_400_000

_rails = {}  # type: dict[int, int]


class Supply:
    """A probe's switched supply: the rail behind `pins["power"]`, where it has one.

    A rail that several probes share stays up until the last of them is done; `sleep` makes sure that it goes off.
    """

    def __init__(self, pins):
        self._pin = pins.get("power")
        self._is_on = False

    def on(self):
        if self._pin is None or self._is_on:
            return
        self._is_on = True
        _rails[self._pin] = _rails.get(self._pin, 0) + 1
        machine.Pin(self._pin, machine.Pin.OUT, value=1)

    def off(self):
        if not self._is_on:
            return
        self._is_on = False
        _rails[self._pin] -= 1
        if not _rails[self._pin]:
            _switch_off(self._pin)


def _switch_off(pin):
    machine.Pin(pin, machine.Pin.OUT, value=0)


def wake_by(button_pin):
    """Let a button, which pulls its pin low, end the sleep that follows; not one that is stuck.

    The pin has a resistor to 3.3 V of its own: what is inside the chip may be off while it sleeps.
    """
    pin = machine.Pin(button_pin, machine.Pin.IN)
    if pin.value():
        esp32.wake_on_ext0(pin, esp32.WAKEUP_ALL_LOW)


def sleep(state, duration_ms):
    """Radio off, rails low, memory kept, then deep sleep. Does not return."""
    if "node.link.bearer" in sys.modules:
        # Only who loaded it can have switched a radio on.
        from node.link import bearer

        bearer.off()
    for pin in _rails:
        _switch_off(pin)
    state.step = rtc_memory.ASLEEP
    rtc_memory.store(state)
    machine.deepsleep(max(_SHORTEST_MS, min(duration_ms, _LONGEST_MS)))
