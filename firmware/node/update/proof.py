"""How a new version shows that it works, and what is told of one that did not. Loaded while there is something of that."""

from micropython import const

import judge
import slots
from node import plan, rtc_memory
from node.update import job

_MOST_LOSSES = const(3)


def tell(wake):
    """What happened since the last wake that could tell: another version's first wake, one that came back, a session's steps."""
    record = slots.select()
    known = job.load()
    if known is None:
        return
    if record.reason:
        known.enter(job.ROLLED_BACK, judge.REASONS[record.reason])
    elif record.state == slots.TRIAL and known.stage == job.REBOOTING:
        known.enter(job.TESTING)
    is_image_tried = known.is_image and _is_image_tried(wake, known)
    wake.has_news = wake.has_news or is_image_tried
    known.tell(wake)
    wake.state.update = rtc_memory.UPDATE_UNTOLD if is_image_tried else rtc_memory.UPDATE_NOTHING
    if record.reason:
        from node.update import spare

        spare.void("/" + slots.spare_of(record))  # it has shown that it does not work
        judge.note_told()


def _is_image_tried(wake, known):
    """True while another MicroPython runs that is not kept yet."""
    from node.update import image

    if image.is_running():
        known.enter(job.IMAGE_TESTED, told=job.TESTING)
        return True
    if wake.is_switched_on and known.faults < _MOST_LOSSES:
        # The boot loader takes a loss of power for a start that failed; the image is there, and is tried once more.
        known.faults += 1
        known.enter(job.ACCEPTED)
        return False
    is_new = known.stage == job.IMAGE_STARTED
    known.enter(job.ROLLED_BACK, "image not started" if is_new else "image not heard")
    return False


def end(wake):
    """Whatever this wake was like, before it ends: it counts for or against a new version."""
    known = job.load()
    if known is not None and known.is_image:
        if known.stage == job.IMAGE_TESTED and _outcome(wake) == judge.STORED:
            from node.update import image

            image.keep()
            known.stage = job.ACCEPTED  # the next session finds it there, and installs the bundle
            known.keep()
            wake.state.update = rtc_memory.UPDATE_NOTHING
            plan.talk_soon(wake.state)
        return
    was_on_trial = slots.select().state == slots.TRIAL
    record = judge.end_wake(_outcome(wake), wake.clock.utc_s(wake.clock.uptime_ms()))
    if was_on_trial and record.state == slots.CONFIRMED and not record.reason:
        known = job.load()
        if known is not None and known.stage in (job.REBOOTING, job.TESTING):
            known.stage = job.CONFIRMED
            known.keep()
        # Only a state message tells the server.
        plan.talk_soon(wake.state)


def _outcome(wake):
    if wake.is_broken:
        return judge.BROKEN
    if "broker" not in wake.stages:
        return judge.QUIET
    return judge.STORED if wake.is_stored else judge.UNHEARD
