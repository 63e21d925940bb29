"""How much charge a node takes from its battery in a day: on-times × currents.

The currents stand in the data files of boards, probes and supplies with their sources. The on-times are planned from
the same files (`planned_times`), or measured on the virtual board, which the tests do: a plan below what was measured
fails. All charges are at the battery: a linear regulator passes its current on, a converter takes
V_out / (V_battery · efficiency) of it. A slot may be read more seldom than the node wakes; a probe on a switched supply
is fed whenever another one on that supply is read. Beside the usual day: one with every limit crossed (`urgent_day`), and
one field mode (`field_mode`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from hardware.boards import BoardType
from hardware.catalogue import NodeModel, SensorType, Slot
from hardware.circuits import PANEL, load_interface
from hardware.connections import (
    InterfaceCircuit,
    SupplyCircuit,
    interface_circuits,
    interface_of,
    sensor_type_of,
    supply_circuits,
    supply_of,
)

_DAY_S = 86_400
_MONTH_DAYS = 30
_S_PER_H = 3600
_MS_PER_H = 3_600_000
_UA_PER_MA = 1000

# What a node may take in a day, for a year on its battery (design goals for the node).
GOALS_MAH = {"tree": 6.0, "water": 45.0}

# Of a lithium cell's rated charge in frost and at the end of its life, and what it loses by itself in a month: ours,
# on the careful side of what makers of cells state.
USABLE = 0.8
SELF_DISCHARGE_PER_MONTH = 0.02


# Field mode as firmware/node/field_mode.py and cycle.py have it: how long, from one wake's begin to the next one's, the
# shortest sleep between them; and of a talk that went well, how long the lamp shines and how long showing it takes.
FIELD_MODE_MS, FIELD_WAKE_MS, FIELD_SLEEP_MS = 600_000, 30_000, 1_000
LAMP_ON_MS, LAMP_SHOW_MS = 3_600, 4_500


@dataclass(frozen=True)
class WakeTimes:
    """What one wake takes, in ms: starting, then awake without radio, joining and talking when it publishes.

    `probe_ms`: how long each slot's probe is fed, read or not.
    """

    boot_ms: float
    awake_ms: float
    join_ms: float
    talk_ms: float
    probe_ms: Mapping[str, float]

    @property
    def total_ms(self) -> float:
        """From reset to sleep, without radio."""
        return self.boot_ms + self.awake_ms


@dataclass(frozen=True)
class Wakes:
    """So many wakes a day that read the same slots (their ids), and what one of them takes."""

    per_day: float
    due: frozenset[str]
    times: WakeTimes


@dataclass(frozen=True)
class Item:
    """One line of an estimate. `for_others_mah`: its part while only another probe on the same supply needs it."""

    what: str
    mah_per_day: float
    for_others_mah: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A day's charge by what takes it. `battery_days`: how long the model's battery lasts."""

    items: tuple[Item, ...]
    goal_mah_per_day: float
    battery_days: float

    @property
    def mah_per_day(self) -> float:
        """The whole."""
        return sum(item.mah_per_day for item in self.items)

    @property
    def for_others_mah(self) -> float:
        """What probes take while they are fed only because they share a supply with one that is read."""
        return sum(item.for_others_mah for item in self.items)

    @property
    def is_within_goal(self) -> bool:
        """Whether a node of this kind may take so much."""
        return self.mah_per_day <= self.goal_mah_per_day


@dataclass(frozen=True)
class FieldMode:
    """What one field mode takes: so many wakes that read every probe, publish and show it."""

    wakes: int
    mah: float


def planned_wakes(model: NodeModel, board: BoardType, *, sample_every_s: int) -> tuple[Wakes, ...]:
    """The wakes of a day by which slots they read, most frequent first; the day begins with all slots due."""
    samples = range(-(-_DAY_S // sample_every_s))
    kinds = Counter(_due(model, number, sample_every_s) for number in samples)
    day_per_samples = _DAY_S / (len(samples) * sample_every_s)
    return tuple(
        Wakes(count * day_per_samples, due, planned_times(model, board, due))
        for due, count in kinds.most_common()
    )


def planned_times(
    model: NodeModel, board: BoardType, due: Collection[str] | None = None
) -> WakeTimes:
    """A wake that reads the slots `due` (None: all), as the data files have it.

    All probes start at once, so that the slowest one sets the time and the others warm up in its shadow. A switched
    supply is on for as long as the slowest of its probes that are due takes.
    """
    ready_ms = {
        slot.id: float(sensor_type_of(slot).ready_ms)
        for slot in model.slots
        if due is None or slot.id in due
    }
    probe_ms = {slot.id: ready_ms.get(slot.id, 0.0) for slot in model.slots}
    for circuit in supply_circuits(model):
        if circuit.gate is not None:
            slowest = max(ready_ms.get(slot.id, 0.0) for slot in circuit.slots)
            probe_ms |= {slot.id: slowest for slot in circuit.slots}
    times = board.times
    return WakeTimes(
        boot_ms=times.boot_ms,
        awake_ms=times.load_ms + max(ready_ms.values(), default=0.0),
        join_ms=times.join_ms,
        talk_ms=times.talk_ms,
        probe_ms=probe_ms,
    )


def longest_wake_ms(times: WakeTimes) -> float:
    """Such a wake when the node publishes, too."""
    return times.total_ms + times.join_ms + times.talk_ms


def estimate(
    model: NodeModel, board: BoardType, wakes: Sequence[Wakes], *, publish_every_s: int
) -> Estimate:
    """A day of these wakes and of publishing every `publish_every_s`."""
    talks, talk = _DAY_S / publish_every_s, wakes[0].times
    started_ms = sum(one.per_day * one.times.boot_ms for one in wakes)
    awake_ms = sum(one.per_day * one.times.awake_ms for one in wakes)
    up_s = (started_ms + awake_ms + talks * (talk.join_ms + talk.talk_ms)) / 1000
    asleep_h = max(0.0, _DAY_S - up_s) / _S_PER_H
    items = [
        Item("asleep, board", asleep_h * board.currents.asleep_ua / _UA_PER_MA),
        Item("asleep, probes and circuits", asleep_h * _asleep_ua(model) / _UA_PER_MA),
        *_awake_items(model, board, wakes, talks=talks),
    ]
    total_mah = sum(item.mah_per_day for item in items)
    return Estimate(tuple(items), GOALS_MAH[model.site_kind], _battery_days(model, total_mah))


def urgent_day(model: NodeModel, board: BoardType) -> Estimate | None:
    """A day on which every limit of the model is crossed from midnight to midnight; None for a model without limits.

    The node samples and publishes every `urgent_every_s` then, and reads the slots with limits each time
    (firmware/node/measuring.py), and those that their channels need; other slots keep their own interval.
    """
    if model.urgent_every_s is None:
        return None
    watched = {limit.channel for limit in model.limits}
    watched |= {key for one in watched for key in model.channel(one).needs.values()}
    slots = tuple(
        replace(slot, every_s=None)
        if watched & {channel.key for channel in slot.channels}
        else slot
        for slot in model.slots
    )
    hurried = replace(model, slots=slots)
    wakes = planned_wakes(hurried, board, sample_every_s=model.urgent_every_s)
    return estimate(hurried, board, wakes, publish_every_s=model.urgent_every_s)


def field_mode(model: NodeModel, board: BoardType) -> FieldMode | None:
    """What one field mode takes while the node is awake; None for a model without a button."""
    if model.button is None:
        return None
    times = planned_times(model, board)
    wake_ms = longest_wake_ms(times) + LAMP_SHOW_MS
    count = ceil(FIELD_MODE_MS / max(FIELD_WAKE_MS, wake_ms + FIELD_SLEEP_MS))
    wakes = [Wakes(count, frozenset(slot.id for slot in model.slots), times)]
    charge_mah = sum(one.mah_per_day for one in _awake_items(model, board, wakes, talks=count))
    lamp_ma = 0.0 if model.led is None else load_interface(PANEL["led"]).active_ma
    show = LAMP_SHOW_MS * board.currents.awake_ma + LAMP_ON_MS * lamp_ma
    return FieldMode(count, charge_mah + count * show / _MS_PER_H)


def _awake_items(
    model: NodeModel, board: BoardType, wakes: Sequence[Wakes], *, talks: float
) -> list[Item]:
    """What these wakes take, and so many talks."""
    currents, talk = board.currents, wakes[0].times
    started_ms = sum(one.per_day * one.times.boot_ms for one in wakes)
    awake_ms = sum(one.per_day * one.times.awake_ms for one in wakes)
    return [
        Item("starting", started_ms * currents.boot_ma / _MS_PER_H),
        Item(
            "awake: loading, waiting for probes, keeping",
            awake_ms * currents.awake_ma / _MS_PER_H,
        ),
        *(_probe_item(model, slot, wakes) for slot in model.slots),
        Item("joining Wi-Fi", talks * talk.join_ms * currents.join_ma / _MS_PER_H),
        Item("talking to the server", talks * talk.talk_ms * currents.talk_ma / _MS_PER_H),
    ]


def _due(model: NodeModel, number: int, sample_every_s: int) -> frozenset[str]:
    """The slots that the sample of this number reads: those for which it is the first of their interval."""
    at_s, before_s = number * sample_every_s, (number - 1) * sample_every_s
    return frozenset(
        slot.id
        for slot in model.slots
        if slot.every_s is None or at_s // slot.every_s != before_s // slot.every_s
    )


def _probe_item(model: NodeModel, slot: Slot, wakes: Iterable[Wakes]) -> Item:
    """The probe, and its share of what its supply and its interface need while it is on."""
    probe, supply = sensor_type_of(slot), supply_of(slot)
    share = _battery_share(model, slot)
    circuits_ma = supply.active_ma / _users(slot, supply_circuits(model)) + interface_of(
        slot
    ).active_ma / _users(slot, interface_circuits(model))
    charge = for_others = 0.0
    for one in wakes:
        on_ms = one.times.probe_ms[slot.id]
        own_ms = min(on_ms, probe.ready_ms) if slot.id in one.due else 0.0
        taken = _probe_charge(probe, on_ms)
        charge += one.per_day * (taken * share + on_ms * circuits_ma)
        for_others += one.per_day * (taken - _probe_charge(probe, own_ms)) * share
    seldom = f", read every {slot.every_s} s" if slot.every_s else ""
    return Item(
        f"probe {slot.id}, {probe.title}{seldom}", charge / _MS_PER_H, for_others / _MS_PER_H
    )


def _probe_charge(probe: SensorType, on_ms: float) -> float:
    """mA · ms at a probe that is fed for `on_ms`: warming up, stabilising, then as while it measures until it is off."""
    charge, left_ms = 0.0, on_ms
    for phase_ms, phase_ma in (
        (probe.warm_up_ms, probe.currents.warm_up_ma),
        (probe.stabilise_ms, probe.currents.stabilise_ma),
    ):
        spent_ms = min(left_ms, phase_ms)
        charge, left_ms = charge + spent_ms * phase_ma, left_ms - spent_ms
    return charge + left_ms * probe.currents.measure_ma


def _users(slot: Slot, circuits: Iterable[InterfaceCircuit | SupplyCircuit]) -> int:
    """How many slots share the circuit that this one hangs on."""
    return next(len(circuit.slots) for circuit in circuits if slot in circuit.slots)


def _battery_share(model: NodeModel, slot: Slot) -> float:
    """Battery current for 1 mA at the probe."""
    supply = supply_of(slot)
    if supply.source_of_power == "board":
        return 1.0
    return supply.voltage_v / (model.battery.voltage_v * supply.efficiency)


def _asleep_ua(model: NodeModel) -> float:
    """What probes that stay fed, and circuits that are off, draw."""
    return (
        sum(circuit.interface.asleep_ua for circuit in interface_circuits(model))
        + sum(circuit.supply.asleep_ua for circuit in supply_circuits(model))
        + sum(
            sensor_type_of(slot).currents.asleep_ua
            for slot in model.slots
            if not supply_of(slot).gate
        )
    )


def _battery_days(model: NodeModel, mah_per_day: float) -> float:
    """Until the usable charge is gone, self-discharge counted as if the battery stayed full."""
    rated_mah = model.battery.cells * model.battery.cell_mah
    lost_mah_per_day = rated_mah * SELF_DISCHARGE_PER_MONTH / _MONTH_DAYS
    return rated_mah * USABLE / (mah_per_day + lost_mah_per_day)
