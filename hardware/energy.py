"""How much charge a node takes from its battery in a day: on-times × currents.

The currents stand in the data files of boards, probes and supplies with their sources. The on-times are planned from
the same files (`planned_times`), or measured on the virtual board, which the tests do: a plan below what was measured
fails. All charges are at the battery: a linear regulator passes its current on, a converter takes
V_out / (V_battery · efficiency) of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hardware.boards import BoardType
from hardware.catalogue import NodeModel, Slot
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


@dataclass(frozen=True)
class WakeTimes:
    """What one wake takes, in ms: starting, then awake without radio, joining and talking when it publishes.

    `probe_ms`: how long each slot's probe is fed.
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
class Item:
    """One line of an estimate."""

    what: str
    mah_per_day: float


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
    def is_within_goal(self) -> bool:
        """Whether a node of this kind may take so much."""
        return self.mah_per_day <= self.goal_mah_per_day


def planned_times(model: NodeModel, board: BoardType) -> WakeTimes:
    """A wake as the data files have it: all probes start at once, so that the slowest one sets the time.

    A switched supply is on for as long as the slowest of its probes takes.
    """
    probe_ms = {slot.id: float(sensor_type_of(slot).ready_ms) for slot in model.slots}
    for circuit in supply_circuits(model):
        if circuit.gate is not None:
            slowest = max(sensor_type_of(slot).ready_ms for slot in circuit.slots)
            probe_ms |= {slot.id: float(slowest) for slot in circuit.slots}
    times = board.times
    return WakeTimes(
        boot_ms=times.boot_ms,
        awake_ms=times.load_ms + max(probe_ms.values()),
        join_ms=times.join_ms,
        talk_ms=times.talk_ms,
        probe_ms=probe_ms,
    )


def estimate(
    model: NodeModel,
    board: BoardType,
    times: WakeTimes,
    *,
    sample_every_s: int,
    publish_every_s: int,
) -> Estimate:
    """A day of waking every `sample_every_s` and publishing every `publish_every_s`."""
    wakes, talks = _DAY_S / sample_every_s, _DAY_S / publish_every_s
    awake_s = (wakes * times.total_ms + talks * (times.join_ms + times.talk_ms)) / 1000
    asleep_h = max(0.0, _DAY_S - awake_s) / _S_PER_H
    currents = board.currents
    items = [
        Item("asleep, board", asleep_h * currents.asleep_ua / _UA_PER_MA),
        Item("asleep, probes and circuits", asleep_h * _asleep_ua(model) / _UA_PER_MA),
        Item("starting", wakes * times.boot_ms * currents.boot_ma / _MS_PER_H),
        Item(
            "awake: loading, waiting for probes, keeping",
            wakes * times.awake_ms * currents.awake_ma / _MS_PER_H,
        ),
        *(_probe_item(model, slot, wakes, times) for slot in model.slots),
        Item("joining Wi-Fi", talks * times.join_ms * currents.join_ma / _MS_PER_H),
        Item("talking to the server", talks * times.talk_ms * currents.talk_ma / _MS_PER_H),
    ]
    total_mah = sum(item.mah_per_day for item in items)
    return Estimate(tuple(items), GOALS_MAH[model.site_kind], _battery_days(model, total_mah))


def _probe_item(model: NodeModel, slot: Slot, wakes: float, times: WakeTimes) -> Item:
    """The probe, and its share of what its supply and its interface need while it is on."""
    probe, supply, on_ms = sensor_type_of(slot), supply_of(slot), times.probe_ms[slot.id]
    charge = (
        probe.warm_up_ms * probe.currents.warm_up_ma
        + probe.stabilise_ms * probe.currents.stabilise_ma
        + probe.measure_ms * probe.currents.measure_ma
    )
    # Fed for longer than planned, it goes on as while it measures.
    charge += max(0.0, on_ms - probe.ready_ms) * probe.currents.measure_ma
    at_battery = charge * _battery_share(model, slot) + on_ms * (
        supply.active_ma / _users(slot, supply_circuits(model))
        + interface_of(slot).active_ma / _users(slot, interface_circuits(model))
    )
    title = sensor_type_of(slot).title
    return Item(f"probe {slot.id}, {title}", wakes * at_battery / _MS_PER_H)


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
