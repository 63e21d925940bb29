"""Field mode: whoever stands before a node sees within a minute that it is heard, by a lamp, and on the server by its packs.

After the node was switched on, or its button was pressed, it samples and publishes at once and then every half a minute, for ten
minutes and never longer. It goes to sleep in between as always, so nothing that ends a wake ends field mode, and nothing that hangs
outlasts it. A weak battery, and a supply that gave way, leave no room for it.
"""

import time

import esp32
import machine
from micropython import const

from node import plan

_LASTS_MS = const(600_000)

# Moisture in a button presses it too: not more often than anybody would.
_DAY_MS = const(86_400_000)
_A_DAY = const(6)
# Power that goes again and again during field mode is no technician.
_UNFINISHED = const(3)
_COUNTER = "field"

# What the lamp says: flashes, and for how many ms it is on and off (docs/technician/field_mode.md has the same table).
CODES = {
    "wifi": (1, 200, 300),
    "broker": (2, 200, 300),
    "receipt": (1, 3000, 0),
    "failed": (10, 60, 60),
}


def show(lamp_pin, stages):
    """Say by the lamp how far a wake came. The radio is off before: it takes more than the lamp."""
    from node.link import bearer

    bearer.off()
    if lamp_pin is not None:
        lamp = machine.Pin(lamp_pin, machine.Pin.OUT, value=0)
        for stage in stages:
            _flash(lamp, *CODES[stage])


def _flash(lamp, flashes, on_ms, off_ms):
    for _ in range(flashes):
        lamp.value(1)
        time.sleep_ms(on_ms)
        lamp.value(0)
        time.sleep_ms(off_ms)


def enter(wake):
    """The uptime at which this wake of field mode begins, be it the first one; None outside of field mode."""
    state, now_ms = wake.state, wake.clock.uptime_ms()
    if state.level >= plan.MUTE or state.brown_outs:
        state.field_until_ms = None
        return None
    asked_by = _asked_by(wake)
    if asked_by is not None and _may_begin(state, now_ms):
        state.field_starts = [now_ms] + state.field_starts[: _A_DAY - 1]
        state.field_until_ms = now_ms + _LASTS_MS
        wake.events.append(("field_mode", (("by", asked_by),)))
    if state.field_until_ms is None:
        return None
    if now_ms >= state.field_until_ms:
        state.field_until_ms = None
        _count(0)
        return None
    return now_ms


def may_begin(wake):
    """False when the button was pressed more often than a person would."""
    return _may_begin(wake.state, wake.clock.uptime_ms())


def _may_begin(state, now_ms):
    starts = state.field_starts
    return len(starts) < _A_DAY or now_ms - starts[-1] >= _DAY_MS


def _asked_by(wake):
    if wake.is_switched_on:
        unfinished = _counted()
        if unfinished >= _UNFINISHED:
            return None
        _count(unfinished + 1)
        return "power_on"
    is_button = machine.reset_cause() == machine.DEEPSLEEP_RESET
    return "button" if is_button and machine.wake_reason() == machine.EXT0_WAKE else None


def _counted():
    """Field modes in a row that a loss of power ended."""
    try:
        return esp32.NVS("cfg").get_i32(_COUNTER)
    except OSError:
        return 0


def _count(number):
    if number != _counted():
        nvs = esp32.NVS("cfg")
        nvs.set_i32(_COUNTER, number)
        nvs.commit()
