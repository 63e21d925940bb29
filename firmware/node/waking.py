"""What a wake does before it talks: it looks at itself, samples, and keeps what it found. Its memory is given back then.

A battery that is too low, and a supply that gave way again and again, end the wake here.
"""

import machine
from micropython import const

import slots
from node import battery, cbor, config, heap, measuring, plan, power, senml
from node.deadline import Deadline

_SAMPLING_MS = const(75_000)  # the slowest probe takes 52 s, with a wiper's turn and its tries
_BROWN_OUTS = const(3)
_STOPPED_MS = const(21_600_000)  # between two looks at a battery that is nearly empty

# A swapped battery: more than one recovers by itself while nobody uses it.
_RISE_MV = const(100)
# A battery gives more in any state: less was an open divider, or a node on a bench.
_LEAST_MV = const(1000)
# The newest packs on flash may be events.
_LOOK_BACK = const(4)

_NAME = const(0)
_VALUE = const(2)


def begin(wake):
    """Look at what the last wake left and at the battery. Does not return when there is nothing more to do."""
    _note_fault(wake)
    if wake.is_switched_on and wake.state.brown_outs >= _BROWN_OUTS:
        # Not even sampling works: one try in every interval, until somebody brings a battery.
        power.sleep(wake.state, wake.config.sample_s * 1000)
    wake.begin("battery")
    _weigh(wake)
    if wake.state.level == plan.STOP:
        _stop(wake)
    _enter_field_mode(wake)


def note_power_on(wake):
    """Find out what happened while the node was off.

    A battery was swapped or charged when it gives so much more than in the newest pack on flash. Nobody is asked: the technician has
    other things to do.
    """
    now_mv, before_mv = wake.battery_mv, _battery_before(wake)
    if now_mv is None or before_mv is None or before_mv < _LEAST_MV:
        return
    if now_mv - before_mv >= _RISE_MV:
        wake.events.append(("battery_swap", (("mv", now_mv), ("was_mv", before_mv))))


def sample(wake, uptime_ms):
    node = wake.config.node
    probes = node["probes"]
    if wake.field_ms is None:  # whoever stands before the node wants to see every probe
        probes = measuring.due(wake.state, wake.config, wake.clock, uptime_ms)
    readings = measuring.measure(probes, Deadline(_SAMPLING_MS))
    measuring.note_read(wake.state, wake.config, probes, uptime_ms)
    if wake.battery is not None:
        readings.append((node["bat"]["key"], wake.battery))
    heap.note()
    return readings


def judge(wake, uptime_ms, readings):
    """Find limits that are crossed or have ended."""
    if wake.config.limits or wake.state.crossed:
        from node import limits

        found = limits.judge(wake.state, wake.config, uptime_ms, readings)
        wake.events += found
        wake.has_news = wake.has_news or bool(found)


def keep(wake, uptime_ms, readings):
    """On flash before anybody hears of it; lost while the flash cannot be used, which `open_spool` has reported."""
    if wake.spool is None or not readings:
        return
    spool, power_up = wake.spool, wake.state.power_up
    day = plan.day_of(wake.clock.utc_ms(uptime_ms), wake.config)
    wake.guard(_make_room, day)
    n_records, body = senml.body(spool.id, spool.next_seq, power_up, uptime_ms, readings)
    spool.append(power_up, uptime_ms, n_records, body, day)


def keep_events(wake, uptime_ms):
    for name, details in wake.events:
        keep(wake, uptime_ms, (("_event", name),) + details)


def keep_crash(wake, uptime_ms):
    """A crash is told once, as an event in the same sequence as the readings."""
    if wake.state.crash is not None and wake.spool is not None:
        from node import crash

        keep(wake, uptime_ms, crash.readings(wake.state.crash, wake.state.boot_count))
        wake.state.crash = None


def keep_update(wake):
    """In the first wakes of another version it is told that it runs; in the first of one that came back, why; and what a session did."""
    record = slots.select()
    is_tried = record.state == slots.TRIAL
    # Each wake of a new version is to be heard, and why it was left.
    wake.has_news = wake.has_news or is_tried or record.reason > 0
    is_any = wake.has_news or wake.state.update or wake.is_switched_on
    if is_any and wake.spool is not None and config.is_kept("upd", "job"):
        from node.update import proof

        proof.tell(wake)


def _make_room(wake, day):
    wake.spool.make_room(day)


def _note_fault(wake):
    """After a wake that hung, or that the supply ended; what was too much for that is not tried again at once."""
    is_brown_out = wake.is_switched_on and wake.state.brown_outs
    if is_brown_out or machine.reset_cause() == machine.WDT_RESET:
        from node import crash

        if is_brown_out:
            crash.note_brown_out(wake.state)
            plan.note_exchange(wake.state, wake.config, 0, False)
        else:
            crash.note_watchdog(wake.state)
    if wake.state.crash is not None:
        wake.config.note_failure(wake.state, wake.state.crash[0])


def _weigh(wake):
    """Read the battery, before anything that loads it: what it can give decides what this wake does."""
    state, config = wake.state, wake.config
    if not config.node.get("bat"):
        return
    wake.battery = plan.battery(config.node["bat"])
    if wake.battery_mv is None:
        return
    before = state.level
    state.level = battery.level(before, wake.battery_mv, config.thresholds_mv)
    if state.level != before:
        details = (("level", battery.LEVELS[state.level]), ("mv", wake.battery_mv))
        wake.events.append(("battery", details))
        # A node that comes back from having stopped is in no state to talk at once.
        wake.has_news = before != plan.STOP


def _stop(wake):
    """Tell of it once, on flash, then sleep for hours. Does not return."""
    if wake.events:
        wake.guard(keep_events, wake.clock.uptime_ms())
    if wake.spool is not None:
        wake.state.spool = wake.spool.saved()
    power.sleep(wake.state, _STOPPED_MS)


def _enter_field_mode(wake):
    """Field mode begins, goes on or ends."""
    if wake.config.button_pin is None:
        return
    is_woken = machine.wake_reason() == machine.EXT0_WAKE
    if is_woken or wake.is_switched_on or wake.state.field_until_ms is not None:
        from node import field_mode

        wake.field_ms = field_mode.enter(wake)


def _battery_before(wake):
    """The battery's last voltage that is on flash; None when there is none."""
    spool, battery = wake.spool, wake.config.node.get("bat")
    if spool is None or not battery:
        return None
    found = None
    for _, _, _, n_records, body in spool.packs(spool.newest - _LOOK_BACK, spool.newest):
        for record in cbor.decode(cbor.array_head(n_records) + body):
            if record[_NAME] == battery["key"] and _VALUE in record:
                found = record[_VALUE]
    return found
