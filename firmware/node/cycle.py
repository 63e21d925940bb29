"""One wake, from the reset to deep sleep: sample, keep, talk when it is time, sleep. Nothing here lasts without a limit."""

import machine

from node import config, plan, power, rtc_memory
from node.clock import Clock
from node.spool import Spool

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

    def reached(self, stage):
        """The talk came so far; whoever stands before the node will be told."""
        if self.field is not None:
            self.field.stages.append(stage)

    @property
    def battery_mv(self):
        return self.battery if isinstance(self.battery, int) else None

    @property
    def is_stored(self):
        """True when the server has all that the node holds, or has taken some of it in this wake."""
        return self.spool is not None and (
            not self.spool.depth or self.spool.receipt > self.receipt_before
        )

    def open_spool(self):
        # What was noted holds until something changes. A wake that does not end well leaves no note, and the next one searches.
        saved, self.state.spool = self.state.spool, None
        self.spool = Spool(_SPOOL_FOLDER, saved)
        if saved is None or self.state.sent_high is None:
            # Nobody remembers what was sent before the power went: anything on flash may have been.
            self.state.sent_high = self.spool.newest

    def wait_ms(self):
        """Until the next wake."""
        now_ms = self.clock.uptime_ms()
        wait_ms = plan.sleep_ms(self.clock.schedule_ms(now_ms), self.state, self.config)
        return wait_ms if self.field is None else min(wait_ms, self.field.wait_ms(now_ms))

    def guard(self, step, *arguments):
        """Run one step; a failure is kept for the next state message and costs only that step. True when it went well."""
        try:
            step(self, *arguments)
            return True
        except Exception as error:
            from node import crash

            self.state.last_error = crash.describe(error)
            return False

    def begin(self, step):
        """Keep what this wake is about to do: should it hang or crash, the next one knows, and has its memory."""
        self.state.step = step
        rtc_memory.store(self.state)


def run():
    """Does not return."""
    wake = Wake()
    state, clock = wake.state, wake.clock
    from node import waking  # after what stays: it leaves no holes in the heap when it is forgotten

    waking.begin(wake)
    wake.begin("spool")
    wake.guard(Wake.open_spool)
    if wake.is_switched_on:
        wake.guard(waking.note_power_on)
    uptime_ms = clock.uptime_ms()
    # Before the probes: one that hangs again must not keep it from being told.
    wake.guard(waking.keep_crash, uptime_ms)
    wake.begin("sample")
    readings = waking.sample(wake, uptime_ms)
    wake.guard(waking.judge, uptime_ms, readings)
    wake.begin("keep")
    wake.guard(waking.keep_events, uptime_ms)
    wake.guard(waking.keep, uptime_ms, readings)
    del waking, readings
    if wake.field or plan.is_publish_due(state, wake.config, clock, uptime_ms, wake.has_news):
        wake.begin("talk")
        is_good = wake.guard(_talk)
        if is_good or not wake.field:
            plan.note_exchange(state, wake.config, uptime_ms, is_good)
        if wake.field:
            wake.field.show("receipt" if is_good and wake.is_stored else "failed")
    if wake.spool is not None:
        state.spool = wake.spool.saved()
    state.brown_outs = 0
    wake.guard(_listen_to_button)
    power.sleep(state, clock.asleep_ms(wake.wait_ms()))


def _talk(wake):
    plan.forget_done()
    wake.receipt_before = 0 if wake.spool is None else wake.spool.receipt
    from node.link.exchange import Exchange

    Exchange(wake).run()
    wake.state.last_error = None


def _listen_to_button(wake):
    pin = wake.config.button_pin
    if pin is None:
        return
    from node import field_mode

    if field_mode.may_begin(wake):
        power.wake_by(pin)
