"""Does every sensor slot of a node deliver something that can be true? Measured by the node's own drivers, on its board.

A pass says that the probe is wired, answers, and gives a value that it can have on a bench. It says nothing of how good
the value is: that is calibration.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2

from hardware.catalogue import Channel, NodeModel, Quantity, Slot, load_sensor_type
from provisioning.boards import BenchBoard
from provisioning.errors import BenchError
from provisioning.node_configuration import node_map
from provisioning.scripts import ask, base64_literal

# The firmware's own limit for one round is 75 s; the slowest probe takes 52 s.
_ROUND_MS = 75_000
_PATIENCE_S = 100.0
_WATCHDOG_MS = 600_000

# One line for each channel: its key, then i and an integer, f and the bytes of a float32, or r and a reason.
_MEASURE = """
import machine, sys
from binascii import a2b_base64, hexlify
if "/a" not in sys.path:
    sys.path.insert(1, "/a")
from node import cbor, plan
from node.deadline import Deadline
node = cbor.decode({node})
try:
    readings = plan.measure(node["probes"], Deadline({round_ms}))
    if node.get("bat"):
        readings.append((node["bat"]["key"], plan.battery(node["bat"])))
finally:
    machine.WDT(timeout={watchdog_ms})
for key, value in readings:
    if isinstance(value, int):
        say("%s i%d" % (key, value))
    elif isinstance(value, bytes):
        say("%s f%s" % (key, hexlify(value).decode()))
    else:
        say("%s r%s" % (key, value))
"""

# What a bench can be like: narrower than what a probe can measure, where that tells a fault.
_ON_A_BENCH = {
    "soil_temperature": (-10.0, 45.0),
    "water_temperature": (-2.0, 45.0),
    "air_temperature": (-10.0, 45.0),
    # 10 kΩ against a series resistor of 1 %; twice that is a wrong part or a bad joint.
    "reference_resistance": (9_800.0, 10_200.0),
    # From a lithium cell that is nearly empty to a full one on its charger.
    "battery_voltage": (3_000.0, 5_500.0),
}

_NEXT_STEPS = {
    "absent": "nothing answers: see that the plug is in, and its wires at {wires}",
    "timeout": "it began to answer and did not end: see to its supply and to a loose contact at {wires}",
    "crc": "its answers arrive damaged: shorten the cable, part it from mains, see to the ground wire",
    "por": "it loses its supply while it measures: see to its 3.3 V and ground wires",
    "range": "it answers with what cannot be: is it the probe that belongs here, set up as its sheet says?",
    "short": "two of its wires touch: see to plug and cable at {wires}",
    "open": "a wire is broken, or the probe is dry: wet it for a minute, then see to {wires}",
    "spread": "its two readings differ: wet it for a minute, then see to a loose contact at {wires}",
    "frame": "it answers in another dialect: see to its speed, parity and address",
    "error": "its driver failed: flash the node again; when it stays, tell us",
}
_OUT_OF_RANGE = "the value is not of a bench: see that the right probe is in the slot, and to its wires at {wires}"
_SILENT = "it was not measured in time: test again with the other probes unplugged"

_PARTS = re.compile(r"(?P<unit>.+)/(?P<parts>\d+)")
_SMT100_TEMPERATURE = "(Cel+100)*100"  # its sheet: T = (raw - 10000) / 100


@dataclass(frozen=True)
class ChannelResult:
    """What one channel delivered, in the unit in which its probe tells it, and what that may be on a bench."""

    slot: str
    probe: str
    channel: str
    quantity: str
    unit: str
    value: float | None
    reason: str | None
    lowest: float
    highest: float
    next_step: str | None
    """What to do; None for one that passed."""

    @property
    def has_passed(self) -> bool:
        return self.next_step is None


def run_self_test(board: BenchBoard, model: NodeModel) -> list[ChannelResult]:
    """Measure every channel of the model once, in its order.

    Raises:
        BenchError: the board failed, or has no firmware to measure with.
    """
    content = cbor2.dumps(node_map(model))
    script = _MEASURE.format(
        node=base64_literal(content), round_ms=_ROUND_MS, watchdog_ms=_WATCHDOG_MS
    )
    try:
        lines = ask(board, script, patience_s=_PATIENCE_S)
    except BenchError as error:
        if "no module named 'node" in str(error):
            raise BenchError(
                "The board has no firmware to measure with; flash it first."
            ) from error
        raise
    said = {key: text for key, _, text in (line.partition(" ") for line in lines)}
    return judge(model, said)


def judge(model: NodeModel, said: Mapping[str, str]) -> list[ChannelResult]:
    """Results from what a board said: channel key → `i`, `f` or `r` and the rest."""
    return [
        _result(slot, channel, said.get(channel.key, "rNone"))
        for slot in model.slots
        for channel in slot.channels
    ]


def _result(slot: Slot, channel: Channel, text: str) -> ChannelResult:
    sensor_type = load_sensor_type(slot.sensor_type)
    quantity = sensor_type.quantity(channel.property)
    lowest, highest = _range(quantity)
    unit, _ = shown(0, quantity.raw_unit)
    raw = _raw(text)
    value = None if raw is None else shown(raw, quantity.raw_unit)[1]
    reason = text[1:] if raw is None else None
    step: str | None = None
    if value is None:
        step = _NEXT_STEPS.get(reason or "", _SILENT)
    elif not lowest <= value <= highest:
        step = _OUT_OF_RANGE
    return ChannelResult(
        slot=slot.id,
        probe=sensor_type.title,
        channel=channel.key,
        quantity=channel.property,
        unit=unit,
        value=value,
        reason=reason,
        lowest=lowest,
        highest=highest,
        next_step=step and step.format(wires=_wires(slot)),
    )


def shown(raw: float, raw_unit: str) -> tuple[str, float]:
    """Unit and value of a raw value as people read it: 344 in `Cel/16` is 21.5 Cel."""
    if raw_unit == _SMT100_TEMPERATURE:
        return "Cel", raw / 100 - 100
    parts = _PARTS.fullmatch(raw_unit)
    if parts is None:
        return raw_unit, raw
    return parts["unit"], raw / int(parts["parts"])


def _range(quantity: Quantity) -> tuple[float, float]:
    ends = [
        shown(raw, quantity.raw_unit)[1] for raw in (quantity.raw_minimum, quantity.raw_maximum)
    ]
    lowest, highest = _ON_A_BENCH.get(quantity.property, (ends[0], ends[1]))
    return max(lowest, ends[0]), min(highest, ends[1])


def _raw(text: str) -> float | None:
    if text.startswith("i"):
        return int(text[1:])
    if text.startswith("f"):
        (value,) = struct.unpack(">f", bytes.fromhex(text[1:]))
        return float(value)
    return None


def _wires(slot: Slot) -> str:
    """`slot w30 (a GPIO25, b GPIO26, adc GPIO32)`."""
    pins = ", ".join(f"{role} GPIO{number}" for role, number in slot.pins.items())
    return f"slot {slot.id} ({pins})"


def as_plain(results: list[ChannelResult]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{**vars(result), "passed": result.has_passed} for result in results]
