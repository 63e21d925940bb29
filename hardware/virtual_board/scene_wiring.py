"""Solders a scene's probes to a board: one `Wiring` per node, pins from its node model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hardware.catalogue import CatalogueError, Slot, load_node_model, load_sensor_type
from hardware.scenes import Scene
from hardware.virtual_board.probes.a02yyuw import A02yyuw
from hardware.virtual_board.probes.battery import BatteryDivider
from hardware.virtual_board.probes.capacitive import Capacitive
from hardware.virtual_board.probes.contact import Contact
from hardware.virtual_board.probes.current_loop import LevelLoop
from hardware.virtual_board.probes.described import DescribedProbe
from hardware.virtual_board.probes.ds18b20 import Ds18b20
from hardware.virtual_board.probes.ezo import Ezo, EzoDo, EzoEc, EzoPh
from hardware.virtual_board.probes.faults import FaultSwitch, Source
from hardware.virtual_board.probes.modbus import ModbusProbe, Rs485Bus
from hardware.virtual_board.probes.sdi12_line import Sdi12Line
from hardware.virtual_board.probes.sen0681 import Sen0681
from hardware.virtual_board.probes.smt100 import Smt100
from hardware.virtual_board.probes.teros import Teros
from hardware.virtual_board.probes.watermark import Circuit, ReferenceResistor, Watermark
from hardware.virtual_board.probes.yosemitech import Y504, Y511
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.wiring import Wiring

# By sensor type: models after their makers' documents. Any other Modbus probe is made from its description.
_MODBUS_PROBES: dict[str, Callable[..., ModbusProbe]] = {
    "do_modbus": Sen0681,
    "smt100": Smt100,
    "y504": Y504,
    "y511": Y511,
}
_EZO_CIRCUITS: dict[str, type[Ezo]] = {"ezo_ph": EzoPh, "ezo_do": EzoDo, "ezo_ec": EzoEc}

_Answer = TypeVar("_Answer")


def wire_board(scene: Scene | Truth, label: str, *, now_utc_s: int = 0) -> Wiring:
    """Everything attached to the board of node `label`.

    Args:
        scene: the scene; or its truth, which spares working it out again when many boards share a process.
        label: the node's label.
        now_utc_s: the moment at which measured series end; not used when a truth is given.

    Raises:
        SceneError: the scene has no such node.
    """
    truth = scene if isinstance(scene, Truth) else Truth(scene, now_utc_s=now_utc_s)
    model = load_node_model(truth.scene.node(label).model)
    wiring = Wiring()
    for slot in model.slots:
        _attach(wiring, truth, label, slot)
    return wiring


def _attach(wiring: Wiring, truth: Truth, label: str, slot: Slot) -> None:
    driver = load_sensor_type(slot.sensor_type).driver
    seed = truth.scene.seed
    serial = f"{label}/{slot.id}"
    first = slot.channels[0]
    faults = FaultSwitch(_each_second(lambda utc_s: truth.active_faults(label, first.key, utc_s)))
    match driver:
        case "watermark" if first.property == "reference_resistance":
            wiring.analog[slot.pins["adc"]] = ReferenceResistor(
                _source(truth, label, first.key), **_circuit(slot, serial, seed, faults)
            )
        case "watermark":
            wiring.analog[slot.pins["adc"]] = Watermark(
                _source(truth, label, first.key),
                _source(truth, label, first.needs["temperature"]),
                **_circuit(slot, serial, seed, faults),
            )
        case "ds18b20":
            wiring.one_wire[slot.pins["data"]] = Ds18b20(
                _source(truth, label, first.key), serial=serial, seed=seed, faults=faults
            )
        case "modbus":
            probe = _modbus_probe(truth, label, slot, faults)
            bus = wiring.uart.setdefault(slot.options["uart"], Rs485Bus([]))
            assert isinstance(bus, Rs485Bus)  # noqa: S101 - the catalogue lets nothing else share it
            bus.probes.append(probe)
            wiring.power.append(probe)
        case "ezo":
            circuit = _EZO_CIRCUITS[slot.sensor_type](
                _source(truth, label, first.key),
                _source(truth, label, first.needs["temperature"]),
                serial=serial,
                seed=seed,
                power_pin=slot.pins["power"],
                faults=faults,
            )
            wiring.i2c[slot.options["i2c"], slot.options["address"]] = circuit
            wiring.power.append(circuit)
        case "current_loop":
            loop = LevelLoop(
                _source(truth, label, first.key),
                span_m=load_sensor_type(slot.sensor_type).quantity(first.property).factory.slope,
                shunt_ohm=slot.options["shunt_milliohm"] / 1000,
                serial=serial,
                seed=seed,
                channel=slot.options["input"],
                power_pin=slot.pins["power"],
                faults=faults,
            )
            wiring.i2c[slot.options["i2c"], slot.options["address"]] = loop
            wiring.power.append(loop)
        case "battery":
            wiring.analog[slot.pins["adc"]] = BatteryDivider(
                _source(truth, label, first.key),
                divider_milli=slot.options["divider_milli"],
                serial=serial,
                seed=seed,
                faults=faults,
            )
        case "sdi12":
            teros = Teros(
                {channel.property: _source(truth, label, channel.key) for channel in slot.channels},
                address=slot.options["address"],
                model="TER12" if slot.sensor_type == "teros_12" else "TER11",
                power_pin=slot.pins["power"],
                serial=serial,
                seed=seed,
                faults=faults,
            )
            _sdi12_line(wiring, slot).sensors.append(teros)
            wiring.power.append(teros)
        case "a02yyuw":
            module = A02yyuw(
                _source(truth, label, first.key),
                _source(truth, label, first.needs["temperature"]),
                power_pin=slot.pins["power"],
                serial=serial,
                seed=seed,
                faults=faults,
            )
            wiring.lines[slot.options["uart"]] = module
            wiring.power.append(module)
        case "analogue":
            capacitive = Capacitive(
                _source(truth, label, first.key),
                power_pin=slot.pins["power"],
                serial=serial,
                seed=seed,
                faults=faults,
            )
            wiring.analog[slot.pins["adc"]] = capacitive
            wiring.power.append(capacitive)
        case "contact":
            wiring.analog[slot.pins["adc"]] = Contact(
                _source(truth, label, first.key),
                power_pin=slot.pins["power"],
                pull_ohm=slot.options["pull_ohm"],
                series_ohm=slot.options["series_ohm"],
                parallel_ohm=slot.options["parallel_ohm"],
                supply_uv=slot.options["supply_uv"],
                serial=serial,
                seed=seed,
                faults=faults,
            )
        case _:
            raise CatalogueError(
                f"The virtual board has no model of a probe with the driver {driver}."
            )


def _modbus_probe(truth: Truth, label: str, slot: Slot, faults: FaultSwitch) -> ModbusProbe:
    # A probe may deliver a quantity on several channels; what the node itself knows has no source.
    sources = {
        channel.property: _source(truth, label, channel.key)
        for channel in slot.channels
        if channel.property != "wiper_age"
    }
    sensor_type = load_sensor_type(slot.sensor_type)
    address, power_pin = slot.options["address"], slot.pins.get("power")
    serial, seed = f"{label}/{slot.id}", truth.scene.seed
    model = _MODBUS_PROBES.get(sensor_type.id)
    if model is None:
        return DescribedProbe(
            sensor_type,
            sources,
            serial=serial,
            seed=seed,
            address=address,
            power_pin=power_pin,
            faults=faults,
        )
    return model(
        sources, serial=serial, seed=seed, address=address, power_pin=power_pin, faults=faults
    )


def _circuit(slot: Slot, serial: str, seed: int, faults: FaultSwitch) -> Circuit:
    return {
        "pins": (slot.pins["a"], slot.pins["b"]),
        "series_ohm": slot.options["series_ohm"],
        "supply_uv": slot.options["supply_uv"],
        "serial": serial,
        "seed": seed,
        "faults": faults,
    }


def _sdi12_line(wiring: Wiring, slot: Slot) -> Sdi12Line:
    """The wire that this slot's sensor hangs on, with its neighbours."""
    line = wiring.lines.get(slot.options["uart"])
    if not isinstance(line, Sdi12Line):
        line = Sdi12Line(enable_pin=slot.pins["de"])
        wiring.lines[slot.options["uart"]] = line
        wiring.power.append(line)
    return line


def _source(truth: Truth, label: str, key: str) -> Source:
    return _each_second(lambda utc_s: truth.slot_value(label, key, utc_s))


def _each_second(ask: Callable[[float], _Answer]) -> Callable[[float], _Answer]:
    """Ask once a second at most: nature is slow, and a driver may read its pin a hundred times in a row."""
    remembered: dict[int, _Answer] = {}

    def answer(utc_s: float) -> _Answer:
        second = int(utc_s)
        if second not in remembered:
            remembered.clear()
            remembered[second] = ask(second)
        return remembered[second]

    return answer
