"""An update from the desired state to the reset into the other slot, over as many wakes as it takes.

Loaded after the talk, when its memory is free again and MQTT is quiet. What is refused ends the job; what the network or the battery
keeps from happening is tried again in the next wake.
"""

import os

from micropython import const

import slots
from node import heap, plan, report
from node.errors import LinkError, Refused
from node.update import install, job, spare
from node.update.download import Fetcher, digest_of

_TUF_FOLDER = "/tuf"
_NO_SPACE = const(28)
# So many wakes without a byte gained: what is slower than that is no download.
_MOST_FAULTS = const(24)


def carry_on(wake, deadline):
    """Do what can be done in this wake; `wake.is_rebooting` when the other slot shall run."""
    known = job.load()
    if wake.release is None:
        _cancel(wake, known)
        return
    wanted = job.understood(wake.release)
    if known is None or not known.is_for(wake.release):
        known = wanted
        _begin(wake, known)
    if not known.is_on_the_way or slots.select().state != slots.CONFIRMED:
        return
    why = _waits_for(wake)
    if why:
        known.enter(wake, known.stage, why)
        return
    fetcher = Fetcher(wake, deadline)
    try:
        _advance(wake, known, fetcher)
    except Refused as error:
        _end(wake, known, job.REJECTED, str(error))
    except (OSError, LinkError) as error:
        if isinstance(error, OSError) and error.errno == _NO_SPACE:
            _end(wake, known, job.FAILED, known.stage + ": no room")
            return
        _count_fault(wake, known, fetcher.gained, error)
    finally:
        fetcher.close()


def _begin(wake, known):
    running = report.bundle()
    if running.get("counter") == known.counter:
        known.enter(wake, job.ALREADY_INSTALLED)
    else:
        known.enter(wake, job.ACCEPTED)


def _waits_for(wake):
    """What keeps the node from going on for now; "" when nothing does."""
    if wake.state.level != plan.NORMAL:
        return "battery low"
    now_s = wake.clock.utc_s(wake.clock.uptime_ms())
    if now_s is None:
        return "time unknown"
    if not wake.config.link.get("renew"):
        return "no update server"
    until_s = wake.release.get("until_s") or now_s
    if not (wake.release.get("not_before_s") or 0) <= now_s <= until_s:
        return "outside its hours"
    return ""


def _advance(wake, known, fetcher):
    manifest = _manifest(wake, known, fetcher)
    known.enter(wake, job.DOWNLOADING)
    record = slots.select()
    slot, running = "/" + slots.spare_of(record), "/" + record.slot
    slots.note_spare(False)
    places = install.missing(running, slot, manifest)
    install.check_room(slot, manifest, places, wake.spool)
    install.fetch(slot, manifest, places, manifest.bundle_sha256(), fetcher)
    fetcher.close()
    heap.note()
    known.enter(wake, job.VERIFIED)
    known.enter(wake, job.INSTALLING)
    install.finish(slot, manifest, known)
    install.forget()
    known.enter(wake, job.REBOOTING)
    # The last step: whenever the power goes before it, the version that runs now runs on and does this again.
    slots.begin_trial(wake.clock.utc_s(wake.clock.uptime_ms()))
    wake.is_rebooting = True


def _manifest(wake, known, fetcher):
    """What TUF says is signed for this node, and nothing else."""
    content = _content(*_verified(wake, known, fetcher))
    from node.update.manifest import Manifest

    try:
        manifest = Manifest(content)
    except ValueError as error:
        raise Refused(str(error))
    fault = manifest.fault(wake.config.node["model"])
    if not fault and manifest.counter != known.counter:
        fault = "counter differs"
    if not fault and not manifest.allows_downgrade:
        if manifest.counter <= (report.bundle().get("counter") or 0):
            fault = "older than installed"
    if fault:
        raise Refused(fault)
    return manifest


def _verified(wake, known, fetcher):
    """(path, length) of the manifest, which is what the metadata say."""
    length, sha256 = _signed(wake, known, fetcher)
    path = install.FOLDER + "/" + install.MANIFEST
    if not _is_hash(path, length, sha256):
        spare.make_folders(path)
        folder, _, name = known.target.rpartition("/")
        if not fetcher.target(folder + "/" + sha256 + "." + name, length, path):
            raise Refused("manifest missing")
        if not _is_hash(path, length, sha256):
            os.remove(path)
            raise Refused("manifest hash")
    return path, length


def _signed(wake, known, fetcher):
    """(length, SHA-256) of the manifest by the metadata; their memory is given back."""
    from node.update import tuf

    try:
        client = tuf.Client(_TUF_FOLDER, fetcher, wake.clock.utc_s(wake.clock.uptime_ms()))
        client.refresh()
        found = client.target(known.target)
    finally:
        heap.note()
        tuf.forget()
    if found is None:
        raise Refused("not signed")
    length, sha256, custom = found
    if custom.get("model") != wake.config.node["model"]:
        raise Refused("wrong model")
    if custom.get("counter") != known.counter:
        raise Refused("counter differs")
    return length, sha256


def _is_hash(path, length, sha256):
    digest, have = digest_of(path)
    return have == length and digest is not None and digest.digest().hex() == sha256


def _content(path, length):
    content = bytearray(length)
    with open(path, "rb") as file:
        if file.readinto(content) != length:
            raise OSError
    return content


def _count_fault(wake, known, gained, error):
    known.faults = 0 if gained else known.faults + 1
    if known.faults >= _MOST_FAULTS:
        _end(wake, known, job.FAILED, known.stage + ": too slow")
        return
    known.keep()
    plan.talk_soon(wake.state)
    wake.state.last_error = "update: " + str(error)


def _cancel(wake, known):
    if known is not None and known.is_on_the_way:
        _end(wake, known, job.CANCELED, "")


def _end(wake, known, stage, reason):
    known.enter(wake, stage, reason)
    install.forget()
