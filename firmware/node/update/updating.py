"""What a talk brings of updates: a job is taken, given up, or found to wait for something. The work has a wake of its own (session.py)."""

import slots
from node import plan, rtc_memory
from node.config import running_bundle
from node.update import job


def consider(wake):
    """Judge the release that the desired state names. Raises ValueError when it names none that could be."""
    known = job.load()
    if wake.release is None:
        _cancel(wake, known)
        return
    wanted = job.understood(wake.release)
    if known is None or not known.is_for(wake.release):
        known = wanted
        is_there = running_bundle().get("counter") == known.counter
        known.enter(job.ALREADY_INSTALLED if is_there else job.ACCEPTED)
    if known.is_on_the_way and slots.select().state == slots.CONFIRMED:
        why = _waits_for(wake)
        known.enter(known.stage, why)
        if not why:
            wake.state.update = rtc_memory.UPDATE_SESSION
    known.tell(wake)


def _waits_for(wake):
    """What keeps the node from going on for now; "" when nothing does."""
    if wake.state.level != plan.NORMAL:
        return "battery low"
    now_s = wake.clock.utc_s(wake.clock.uptime_ms())
    if now_s is None:
        return "time unknown"
    if not wake.config.link["tls"] or not wake.config.link.get("renew"):
        return "no update server"
    until_s = wake.release.get("until_s") or now_s
    if not (wake.release.get("not_before_s") or 0) <= now_s <= until_s:
        return "outside its hours"
    return ""


def _cancel(wake, known):
    if known is None:
        return
    if known.is_on_the_way:
        from node.update import install

        install.forget()
        known.enter(job.CANCELED)
        known.tell(wake)
    job.forget()
