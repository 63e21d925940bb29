"""One wake, from the reset to deep sleep: sample, keep, talk when it is time, sleep. Nothing here lasts without a limit."""

import machine
from micropython import const

from node import battery, config, crash, heap, plan, power, rtc_memory, senml
from node.clock import Clock
from node.deadline import Deadline
from node.spool import Spool

_SAMPLING_MS = const(75_000)  # the slowest probe takes 52 s, with a wiper's turn and its tries
_BROWN_OUTS = const(3)
_STOPPED_MS = const(21_600_000)  # between two looks at a battery that is nearly empty
_SPOOL_FOLDER = "/spool"


class Wake:
    """What the parts of one wake share. `spool` is None while the flash cannot be used; `events` wait to be kept there.

    `is_switched_on`: it begins a power-up. `has_news`: some of them are to be told at once.
    """

    def __init__(self):
        self.state = rtc_memory.load()
        self.state.boot_count += 1
        self.clock = Clock(self.state)
        self.config = config.Config()
        self.spool = None
        self.battery = None
        self.has_news = False
        self.field = None
        self.receipt_before = 0
        self.events = []
        self.is_switched_on = machine.reset_cause() == machine.PWRON_RESET
        if machine.reset_cause() == machine.WDT_RESET:
            crash.note_watchdog(self.state)
        self._note_brown_out()

    def _note_brown_out(self):
        """After a wake that the supply ended; what was too much for it is not tried again at once."""
        if self.state.brown_outs and self.is_switched_on:
            crash.note_brown_out(self.state)
            plan.note_exchange(self.state, self.config, 0, False)

    def enter_field_mode(self):
        """Field mode begins, goes on or ends."""
        if self.config.lamp_pin is None and self.config.button_pin is None:
            return
        is_woken = machine.wake_reason() == machine.EXT0_WAKE
        if is_woken or self.is_switched_on or self.state.field_until_ms is not None:
            from node import field_mode

            self.field = field_mode.enter(self)

    def reached(self, stage):
        """The talk came so far; whoever stands before the node will be told."""
        if self.field is not None:
            self.field.stages.append(stage)

    def weigh(self):
        """Read the battery, before anything that loads it: what it can give decides what this wake does."""
        before = self.state.level
        self.battery, self.events = plan.weigh(self.state, self.config)
        # A node that comes back from having stopped is in no state to talk at once.
        self.has_news = bool(self.events) and before != battery.STOP

    @property
    def battery_mv(self):
        return self.battery if isinstance(self.battery, int) else None

    @property
    def is_stored(self):
        """True when the server has all that the node holds, or has taken some of it in this wake."""
        return self.spool is not None and (
            not self.spool.depth or self.spool.receipt > self.receipt_before
        )

    def wait_ms(self):
        """Until the next wake."""
        now_ms = self.clock.uptime_ms()
        wait_ms = plan.sleep_ms(self.clock.schedule_ms(now_ms), self.state, self.config)
        return wait_ms if self.field is None else min(wait_ms, self.field.wait_ms(now_ms))

    def begin(self, step):
        """Keep what this wake is about to do: should it hang or crash, the next one knows, and has its memory."""
        self.state.step = step
        rtc_memory.store(self.state)


def run():
    """Does not return."""
    wake = Wake()
    state, clock = wake.state, wake.clock
    if wake.is_switched_on and state.brown_outs >= _BROWN_OUTS:
        # Not even sampling works: one try in every interval, until somebody brings a battery.
        power.sleep(state, wake.config.sample_s * 1000)
    wake.begin("battery")
    wake.weigh()
    if state.level == battery.STOP:
        _stop(wake)
    wake.enter_field_mode()
    wake.begin("spool")
    _guarded(wake, _open_spool)
    if wake.is_switched_on:
        _guarded(wake, _note_power_on)
    uptime_ms = clock.uptime_ms()
    # Before the probes: one that hangs again must not keep it from being told.
    _guarded(wake, _keep_crash, uptime_ms)
    wake.begin("sample")
    readings = _sample(wake, uptime_ms)
    _guarded(wake, _judge, uptime_ms, readings)
    wake.begin("keep")
    _guarded(wake, _keep_events, uptime_ms)
    _guarded(wake, _keep, uptime_ms, readings)
    if wake.field or plan.is_publish_due(state, wake.config, clock, uptime_ms, wake.has_news):
        wake.begin("talk")
        is_good = _guarded(wake, _talk)
        if is_good or not wake.field:
            plan.note_exchange(state, wake.config, uptime_ms, is_good)
        if wake.field:
            wake.field.show("receipt" if is_good and wake.is_stored else "failed")
    if wake.spool is not None:
        state.spool = wake.spool.saved()
    state.brown_outs = 0
    _guarded(wake, _listen_to_button)
    power.sleep(state, clock.asleep_ms(wake.wait_ms()))


def _stop(wake):
    """Tell of it once, on flash, then sleep for hours. Does not return."""
    if wake.events:
        _guarded(wake, _open_spool)
        _guarded(wake, _keep_events, wake.clock.uptime_ms())
        if wake.spool is not None:
            wake.state.spool = wake.spool.saved()
    power.sleep(wake.state, _STOPPED_MS)


def _note_power_on(wake):
    from node import power_on

    wake.events += power_on.events(wake)


def _open_spool(wake):
    # What was noted holds until something changes. A wake that does not end well leaves no note, and the next one searches.
    saved, wake.state.spool = wake.state.spool, None
    wake.spool = Spool(_SPOOL_FOLDER, saved)
    if saved is None or wake.state.sent_high is None:
        # Nobody remembers what was sent before the power went: anything on flash may have been.
        wake.state.sent_high = wake.spool.newest


def _sample(wake, uptime_ms):
    node = wake.config.node
    is_field = wake.field is not None  # whoever stands before the node wants to see every probe
    probes = (
        node["probes"] if is_field else plan.due(wake.state, wake.config, wake.clock, uptime_ms)
    )
    readings = plan.measure(probes, Deadline(_SAMPLING_MS))
    plan.note_read(wake.state, wake.config, probes, uptime_ms)
    if wake.battery is not None:
        readings.append((node["bat"]["key"], wake.battery))
    heap.note()
    return readings


def _judge(wake, uptime_ms, readings):
    """Find limits that are crossed or have ended."""
    if wake.config.limits or wake.state.crossed:
        from node import limits

        found = limits.judge(wake.state, wake.config, uptime_ms, readings)
        wake.events += found
        wake.has_news = wake.has_news or bool(found)


def _keep(wake, uptime_ms, readings):
    """On flash before anybody hears of it; lost while the flash cannot be used, which `_open_spool` has reported."""
    if wake.spool is None or not readings:
        return
    spool, power_up = wake.spool, wake.state.power_up
    day = plan.day_of(wake.clock.utc_ms(uptime_ms), wake.config)
    _guarded(wake, _make_room, day)
    n_records, body = senml.body(spool.id, spool.next_seq, power_up, uptime_ms, readings)
    spool.append(power_up, uptime_ms, n_records, body, day)


def _make_room(wake, day):
    wake.spool.make_room(day)


def _keep_crash(wake, uptime_ms):
    """A crash is told once, as an event in the same sequence as the readings."""
    if wake.state.crash is not None and wake.spool is not None:
        _keep(wake, uptime_ms, crash.readings(wake.state.crash, wake.state.boot_count))
        wake.state.crash = None


def _listen_to_button(wake):
    pin = wake.config.button_pin
    if pin is None:
        return
    from node import field_mode

    if field_mode.may_begin(wake):
        power.wake_by(pin)


def _keep_events(wake, uptime_ms):
    for name, details in wake.events:
        _keep(wake, uptime_ms, (("_event", name),) + details)


def _talk(wake):
    plan.forget_done()
    wake.receipt_before = 0 if wake.spool is None else wake.spool.receipt
    from node.link.exchange import Exchange

    Exchange(wake).run()
    wake.state.last_error = None


def _guarded(wake, step, *arguments):
    """Run one step; a failure is kept for the next state message and costs only that step. True when it went well."""
    try:
        step(wake, *arguments)
        return True
    except Exception as error:
        wake.state.last_error = crash.describe(error)
        return False
