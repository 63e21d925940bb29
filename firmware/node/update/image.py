"""A whole MicroPython into the spare app partition. Not tried on hardware.

It is a target of its own (`tree-3/1.28.0.img`), signed as every release, whose content is the image. It is fetched over as many wakes as it
takes, block by block, and judged by the hash over what the flash holds at the end. The boot loader starts it once; it is kept when
the server was heard in that wake, else the boot loader goes back by itself at the next reset.

NVS `upd`.`image`: [SHA-256 in hex, bytes written, label of the partition that ran] (CBOR).
"""

import binascii
import hashlib

import esp32
import machine
from micropython import const

from node import cbor, config, rtc_memory
from node.errors import NotProvisioned
from node.update import Refused
from node.update.download import buffer
from node.update.job import DOWNLOADING, REBOOTING, VERIFIED

_ERASE = const(6)
_BLOCKS = const(4)
_BLOCK_BYTES = const(4_096)
_LABEL = const(4)


def install(job, length, sha256, fetcher, state):
    """Fetch it and start it. Does not return."""
    if job.counter <= counter():
        raise Refused("older than installed")
    job.enter(DOWNLOADING)
    fetch(job.target_file(sha256), length, sha256, fetcher)
    fetcher.close()
    job.enter(VERIFIED)
    job.enter(REBOOTING)
    from node import plan

    plan.talk_soon(state)
    rtc_memory.store(state)
    boot(sha256)


def fetch(name, length, sha256, fetcher):
    """The image is in the spare partition when this returns. Raises Refused, and what the network raises; what has come stays."""
    spare = _spare()
    if length > spare.ioctl(_BLOCKS, 0) * _BLOCK_BYTES:
        raise Refused("image too long")
    at = _written(sha256)
    try:
        if at < length:
            for piece in fetcher.image(name, at, length - 1):
                at = _write(spare, at, piece)
    finally:
        # From the begin of a block: it is erased before it is written again.
        _note(sha256, at if at == length else at // _BLOCK_BYTES * _BLOCK_BYTES)
    if _hash(spare, length) != sha256:
        _note(sha256, 0)
        raise Refused("image hash")


def boot(sha256):
    """Into the image. Does not return. Raises Refused when the boot loader would not start it."""
    running = _running()
    try:
        _spare().set_boot()
    except OSError:
        raise Refused("image not bootable")
    _keep([sha256, 0, running.info()[_LABEL]])
    machine.reset()  # not through deep sleep: the boot loader takes that for a second start


def is_running():
    """True when another partition runs than when the image was begun with."""
    known = _record()
    return known is not None and _running().info()[_LABEL] != known[2]


def keep(counter):
    """It works: the boot loader starts it from now on, and no older one is taken."""
    esp32.Partition.mark_app_valid_cancel_rollback()
    nvs = esp32.NVS("upd")
    nvs.set_i32("image_n", counter)
    nvs.commit()


def counter():
    """Of the image that was kept last; 0 before the first."""
    try:
        return esp32.NVS("upd").get_i32("image_n")
    except OSError:
        return 0


# --- private ---


def _running():
    return esp32.Partition(esp32.Partition.RUNNING)  # type: ignore[arg-type] # the stubs know labels only


def _spare():
    try:
        return _running().get_next_update()
    except OSError:
        raise Refused("no spare partition")


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
