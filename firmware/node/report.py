"""The state message: what the node says about itself at each connect."""

import gc
import sys

import esp32
import machine

import slots
from node import heap
from node.config import blob, running_bundle
from node.errors import NotProvisioned
from node.link import bearer

_CAUSES = ("power_on", "hard", "watchdog", "deep_sleep", "soft")


def state(wake):
    """Pairs of field and value, in the order of the wire."""
    slot = slots.select()
    running = running_bundle()
    memory, spool, config = wake.state, wake.spool, wake.config
    uptime_ms = wake.clock.uptime_ms()
    is_empty = spool is None or spool.newest < spool.oldest
    return (
        ("model", config.node["model"]),
        ("version", running["version"]),
        ("bundle_sha256", running["sha256"]),
        ("config_version", config.version),
        ("config_sha256", config.sha256()),
        ("slot", slot.slot),
        ("slot_state", slot.state),
        ("battery_mv", wake.battery_mv),
        ("rssi_dbm", bearer.signal_dbm()),
        ("free_heap", gc.mem_free()),
        ("idf_largest", _largest_block()),
        ("spool_depth", 0 if spool is None else spool.depth),
        ("spool", None if spool is None else spool.id),
        ("oldest", None if is_empty else spool.oldest),
        ("newest", None if is_empty else spool.newest),
        ("thinned", None if spool is None else spool.thinned),
        ("lost", None if spool is None else spool.lost),
        ("power_up", memory.power_up),
        ("uptime_ms", uptime_ms),
        ("utc_s", wake.clock.utc_s(uptime_ms)),
        ("boot_count", memory.boot_count),
        ("reset_cause", reset_cause(wake)),
        ("drift_ppm", memory.drift_ppm),
        ("last_error", memory.last_error),
        ("heap_low", heap.low()),
        ("config_state", config.state[0]),
        ("config_reason", config.state[1]),
        ("certificate", wake.credentials[0]),
        ("roots", wake.credentials[1]),
        ("credential_state", wake.credentials[2]),
        ("counter", running.get("counter", 0)),
        ("assignment", running.get("assignment")),
        ("attempt", running.get("attempt")),
        ("micropython", "%s.%s.%s" % tuple(sys.implementation.version)[:3]),
        ("image_sha256", _image_sha256()),
    )


def reset_cause(wake):
    """Why this wake began."""
    if wake.is_switched_on and wake.state.brown_outs:
        return "brown_out"
    numbers = (
        machine.PWRON_RESET,
        machine.HARD_RESET,
        machine.WDT_RESET,
        machine.DEEPSLEEP_RESET,
        machine.SOFT_RESET,
    )
    cause = machine.reset_cause()
    return _CAUSES[numbers.index(cause)] if cause in numbers else "other"


def _image_sha256():
    """Of the MicroPython image that an update brought and that runs (node/update/image.py notes it); None when none did."""
    try:
        label, sha256 = blob("upd", "runs", 96).decode().split(" ")
    except (NotProvisioned, ValueError):
        return None
    running = esp32.Partition(esp32.Partition.RUNNING)  # type: ignore[arg-type] # the stubs know labels only
    return sha256 if running.info()[4] == label else None


def _largest_block():
    """The largest free block of the C heap, which TLS lives in."""
    regions = esp32.idf_heap_info(esp32.HEAP_DATA)
    return max([region[2] for region in regions]) if regions else None
