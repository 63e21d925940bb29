"""One wake, from the reset to deep sleep: sample, keep, talk when it is time, sleep. Nothing here lasts without a limit."""

import gc

import machine
from micropython import const

import slots
from node import config, plan, power, rtc_memory
from node.clock import Clock
from node.deadline import Deadline
from node.errors import LinkError

_SPOOL_FOLDER = "/spool"
_FIELD_MS = const(30_000)  # from one wake of field mode to the next
_SHORTEST_MS = const(1_000)
_RADIO_MS = const(30_000)  # the radio is on for so long at most, whatever happens


class Wake:
    """What the parts of one wake share. `spool` is None while the flash cannot be used; `events` wait to be kept there.

    `is_switched_on`: it begins a power-up. `has_news`: some of them are to be told at once. `field_ms`: uptime at
    which this wake of field mode began, None outside of it; `stages` that its talk reached. `is_connected`: somebody answered at
    the broker's address. `credentials`: what the state message says of them (identity.told); `renewed`: (certificate, authorities) that the talk has brought;
    `has_new_credentials`: those are tried in the next wake. `release`: the one that is desired, None for none, False when that was
    not heard. `is_broken`: a step failed by itself.
    """

    def __init__(self):
        self.state = rtc_memory.load()
        self.state.boot_count += 1
        self.clock = Clock(self.state)
        self.config = config.Config()
        self.spool = None
        self.battery = None
        self.has_news = False
        self.field_ms = None
        self.stages = []
        self.is_connected = False
        self.credentials = [None, None, None]  # type: list[object]
        self.renewed = None
        self.has_new_credentials = False
        self.release = False  # type: object
        self.is_broken = False
        self.receipt_before = 0
        self.events = []
        self.orders = []  # commands to be carried out after the talk
        self.is_switched_on = machine.reset_cause() == machine.PWRON_RESET

    def reached(self, stage):
        """The talk came so far; whoever stands before the node will be told."""
        self.stages.append(stage)

    @property
    def battery_mv(self):
        return self.battery if isinstance(self.battery, int) else None

    @property
    def is_turned_away(self):
        """True when the broker's address answered, and then one of both would not have the other."""
        return self.is_connected and "broker" not in self.stages

    @property
    def is_credential_tried(self):
        return self.credentials[2] == "trial" and not self.has_new_credentials

    @property
    def is_stored(self):
        """True when the server has all that the node holds, or has taken some of it in this wake."""
        return self.spool is not None and (
            not self.spool.depth or self.spool.receipt > self.receipt_before
        )

    def open_spool(self):
        # What was noted holds until something changes. A wake that does not end well leaves no note, and the next one searches.
        from node.spool import Spool

        saved, self.state.spool = self.state.spool, None
        self.spool = Spool(_SPOOL_FOLDER, saved)
        if saved is None or self.state.sent_high is None:
            # Nobody remembers what was sent before the power went: anything on flash may have been.
            self.state.sent_high = self.spool.newest

    def wait_ms(self):
        """Until the next wake."""
        if self.state.update == rtc_memory.UPDATE_SESSION:
            return _SHORTEST_MS
        now_ms = self.clock.uptime_ms()
        wait_ms = plan.sleep_ms(self.clock.schedule_ms(now_ms), self.state, self.config)
        if self.field_ms is None:
            return wait_ms
        return min(wait_ms, max(_SHORTEST_MS, self.field_ms + _FIELD_MS - now_ms))

    def guard(self, step, *arguments):
        """Run one step; a failure is kept for the next state message and costs only that step. True when it went well."""
        try:
            step(self, *arguments)
            return True
        except Exception as error:
            from node import crash

            self.is_broken = self.is_broken or not isinstance(error, (OSError, LinkError))
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
    # Before all that is forgotten again, so that what stays lies together in memory.
    wake.guard(Wake.open_spool)
    uptime_ms = _sample(wake)
    is_field = wake.field_ms is not None
    if is_field or plan.is_publish_due(state, wake.config, clock, uptime_ms, wake.has_news):
        wake.begin("talk")
        deadline = Deadline(_RADIO_MS)
        is_good = wake.guard(_talk, deadline)
        if is_good or not is_field:
            plan.note_exchange(state, wake.config, uptime_ms, is_good)
        wake.config.note_talk(state, is_good)
        if wake.renewed:
            wake.guard(_renew)
        elif wake.is_turned_away:
            wake.guard(_mend, deadline)
        elif is_good and wake.release is not False:
            wake.guard(_consider_update)
        if wake.has_new_credentials:
            plan.talk_soon(state)
        if is_field:
            wake.guard(_show, "receipt" if is_good and wake.is_stored else "failed")
    wake.guard(_judge)
    if wake.orders:
        wake.begin("obey")
        wake.guard(_obey)
    if wake.spool is not None:
        state.spool = wake.spool.saved()
    state.brown_outs = 0
    wake.guard(_listen_to_button)
    power.sleep(state, clock.asleep_ms(wake.wait_ms()))


def _sample(wake):
    """Everything before the talk; the uptime of what was sampled. A frame of its own, so that nothing of it stays in memory."""
    from node import waking

    waking.begin(wake)
    if wake.is_switched_on:
        wake.guard(waking.note_power_on)
    uptime_ms = wake.clock.uptime_ms()
    # Before the probes: one that hangs again must not keep it from being told.
    wake.guard(waking.keep_crash, uptime_ms)
    wake.guard(waking.keep_update)
    wake.begin("sample")
    readings = waking.sample(wake, uptime_ms)
    wake.guard(waking.judge, uptime_ms, readings)
    wake.begin("keep")
    wake.guard(waking.keep_events, uptime_ms)
    wake.guard(waking.keep, uptime_ms, readings)
    return uptime_ms


def _talk(wake, deadline):
    plan.forget_done()
    wake.receipt_before = 0 if wake.spool is None else wake.spool.receipt
    way = _dial(wake, deadline)
    plan.forget_done()  # of the way too: joining and TLS take more than the talk, and it may bring news to make room for
    from node.link.exchange import Exchange

    Exchange(wake, way, deadline).run()
    wake.state.last_error = None


def _dial(wake, deadline):
    from node.link import dial

    return dial.reach(wake, deadline)


def _renew(wake):
    """After the talk, whose memory is free again."""
    plan.forget_done()
    _forget_probes(wake)
    from node import renewal

    renewal.take(wake, *wake.renewed)


def _forget_probes(wake):
    """They are the largest thing in memory, and unless somebody ordered it nothing is sampled any more in this wake."""
    if not wake.orders:
        wake.config.node["probes"] = ()
        gc.collect()


def _mend(wake, deadline):
    """A certificate on trial may be at fault, or one that ran out while the node was asleep, or an authority that has changed."""
    plan.forget_done()
    if wake.is_credential_tried:
        from node import renewal

        renewal.note_failure(wake)
        return
    _forget_probes(wake)
    from node.link import renew

    if renew.is_due(wake):
        wake.renewed = renew.ask(wake, deadline)
        del renew
        plan.forget_done()
        _renew(wake)


def _consider_update(wake):
    if wake.release is not None or config.is_kept("upd", "job"):
        from node.update import updating

        updating.consider(wake)


def _judge(wake):
    """How this wake went counts for or against a new version, and ends a series of crashes."""
    record = slots.select()
    if record.state == slots.TRIAL or record.counted or wake.state.update:
        plan.forget_done()
        from node.update import proof

        proof.end(wake)


def _show(wake, end):
    from node import field_mode

    field_mode.show(wake.config.lamp_pin, wake.stages + [end])


def _listen_to_button(wake):
    pin = wake.config.button_pin
    if pin is None:
        return
    from node import field_mode

    if field_mode.may_begin(wake):
        power.wake_by(pin)


def _obey(wake):
    from node import commands

    commands.carry_out(wake)
