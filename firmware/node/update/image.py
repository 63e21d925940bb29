"""A whole MicroPython into the spare app partition. Not tried on hardware.

A release's manifest names it by size and SHA-256. It is fetched over as many wakes as it takes, block by block, and judged by the hash
over what the flash holds at the end. The boot loader starts it once; it is kept when the server was heard in that wake, else the boot
loader goes back by itself at the next reset. Only then the release's bundle is installed.

NVS `upd`.`image`: [SHA-256 in hex, bytes written, label of the partition that ran] (CBOR); `upd`.`runs`: label of the partition whose
image is known, a space, its SHA-256 in hex.
"""

import binascii
import hashlib

import esp32
import machine
from micropython import const

from node import cbor, config, rtc_memory
from node.errors import NotProvisioned
from node.update import Refused, job

_ERASE = const(6)
_BLOCKS = const(4)
_BLOCK_BYTES = const(4_096)
_LABEL = const(4)


def bring(wanted, known, fetcher, state):
    """Returns when the MicroPython that the release brings is the one that runs; else it is fetched and started, and this does not return."""
    length, sha256 = wanted
    if is_there(length, sha256):
        return
    known.enter(job.DOWNLOADING)
    fetch(length, sha256, fetcher)
    fetcher.close()
    known.enter(job.VERIFIED)
    select(length, sha256)
    known.enter(job.IMAGE_STARTED, told=job.REBOOTING)
    from node import plan

    plan.talk_soon(state)
    rtc_memory.store(state)
    boot()


def is_there(length, sha256):
    """True when the running partition holds this image: by what is there, not by what was noted of it."""
    running = _running()
    if length > _bytes(running) or _hash(running, length) != sha256:
        return False
    _note_running(sha256)
    return True


def fetch(length, sha256, fetcher):
    """The image is in the spare partition when this returns. Raises Refused, and what the network raises; what has come stays."""
    spare = _spare()
    if length > _bytes(spare):
        raise Refused("image too long")
    at = _written(sha256)
    try:
        if at < length:
            for piece in fetcher.image(sha256, at, length - 1):
                at = _write(spare, at, piece)
    finally:
        # From the begin of a block: it is erased before it is written again.
        _note(sha256, at if at == length else at // _BLOCK_BYTES * _BLOCK_BYTES)
    if _hash(spare, length) != sha256:
        _note(sha256, 0)
        raise Refused("image hash")


def select(length, sha256):
    """The next reset starts it. Raises Refused when the boot loader would not."""
    running = _running()
    try:
        _spare().set_boot()
    except OSError:
        raise Refused("image not bootable")
    _keep([sha256, length, running.info()[_LABEL]])


def boot():
    """Into what was selected. Does not return."""
    machine.reset()  # not through deep sleep: the boot loader takes that for a second start


def is_running():
    """True when another partition runs than when the image was begun with."""
    known = _record()
    return known is not None and _running().info()[_LABEL] != known[2]


def keep():
    """It works: the boot loader starts it from now on."""
    esp32.Partition.mark_app_valid_cancel_rollback()
    known = _record()
    if known is not None:
        _note_running(known[0])


# --- private ---


def _running():
    return esp32.Partition(esp32.Partition.RUNNING)  # type: ignore[arg-type] # the stubs know labels only


def _spare():
    try:
        return _running().get_next_update()
    except OSError:
        raise Refused("no spare partition")


def _bytes(partition):
    return partition.ioctl(_BLOCKS, 0) * _BLOCK_BYTES


def _note_running(sha256):
    nvs = esp32.NVS("upd")
    nvs.set_blob("runs", (_running().info()[_LABEL] + " " + sha256).encode())
    nvs.commit()


def _write(spare, at, piece):
    while piece:
        block, offset = at // _BLOCK_BYTES, at % _BLOCK_BYTES
        if not offset:
            spare.ioctl(_ERASE, block)
        count = min(len(piece), _BLOCK_BYTES - offset)
        spare.writeblocks(block, bytes(piece[:count]), offset)
        piece, at = piece[count:], at + count
    return at


def _hash(spare, length):
    from node.update.download import buffer  # a wake that only judges has no need of it

    digest, at = hashlib.sha256(), 0
    while at < length:
        count = min(len(buffer), length - at, _BLOCK_BYTES - at % _BLOCK_BYTES)
        spare.readblocks(at // _BLOCK_BYTES, buffer[:count], at % _BLOCK_BYTES)
        digest.update(buffer[:count])
        at += count
    return str(binascii.hexlify(digest.digest()), "ascii")


def _written(sha256):
    known = _record()
    return known[1] if known is not None and known[0] == sha256 else 0


def _note(sha256, at):
    _keep([sha256, at, ""])


def _record():
    try:
        fields = cbor.decode(config.blob("upd", "image", 128))
    except (NotProvisioned, ValueError):
        return None
    return fields if type(fields) is list and len(fields) == 3 else None


def _keep(fields):
    nvs = esp32.NVS("upd")
    nvs.set_blob("image", cbor.encode(fields))
    nvs.commit()
