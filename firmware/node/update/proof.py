"""How a new version shows that it works, and what is said of one that did not. Loaded while there is something of that."""

import slots
from node import plan
from node.update import job


def begin(wake):
    """In the first wakes of a new version, and in the first of an old one that came back."""
    record = slots.select()
    known = job.load()
    if record.reason:
        if known is not None:
            known.enter(wake, job.ROLLED_BACK, slots.REASONS[record.reason])
        slots.note_told()
    elif record.state == slots.TRIAL and known is not None and known.stage == job.REBOOTING:
        known.enter(wake, job.TESTING)


def end(wake):
    """Whatever this wake was like, before it ends: it counts for or against a new version."""
    was_on_trial = slots.select().state == slots.TRIAL
    record = slots.end_wake(_outcome(wake), wake.clock.utc_s(wake.clock.uptime_ms()))
    if not was_on_trial:
        return
    if record.state == slots.CONFIRMED and not record.reason:
        known = job.load()
        if known is not None and known.stage in (job.REBOOTING, job.TESTING):
            known.stage = job.CONFIRMED
            known.keep()
        # Only a state message tells the server.
        plan.talk_soon(wake.state)


def _outcome(wake):
    if wake.is_broken:
        return slots.BROKEN
    if "broker" not in wake.stages:
        return slots.QUIET
    return slots.STORED if wake.is_stored else slots.UNHEARD
