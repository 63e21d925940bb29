"""Node models and sensor types as data: what a node is built of, read from the TOML files beside this module.

Lives here: reading and checking `node_models/*.toml` and `sensors/*.toml`. Not here: boards (`boards.py`), what stands
between board and probe (`circuits.py`), what a driver does with a pin, what the server does with a raw value. Every
object is frozen; a file with a mistake is refused with one sentence that names the file and the key
(`CatalogueError`), never half loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import hypot
from pathlib import Path
from typing import Any, Literal, cast, get_args

from hardware import data_files, pins, spoken, vocabulary
from hardware.boards import load_board
from hardware.circuits import (
    BATTERY,
    GROUND_TERMINAL,
    SUPPLY_TERMINAL,
    load_interface,
    load_supply,
)
from hardware.data_files import CatalogueError as CatalogueError
from hardware.parts import Part, read_parts
from hardware.strict_toml import StrictTable

SiteKind = Literal["tree", "water"]
# soil: in a drilled hole; water: hung under the surface; above_water: on an arm; enclosure: in the box.
MountingPlace = Literal["soil", "water", "above_water", "enclosure"]

_MODBUS_DRIVER, _EZO_DRIVER = "modbus", "ezo"
# What a node takes (firmware/node/config.py, limits.py).
_SHORTEST_S, _LONGEST_S, _MOST_LIMITS = 60, 86_400, 16
_LIMIT_KINDS = ("below", "above", "fall")
# How long a node waits for all its probes (firmware/node/cycle.py).
_SAMPLING_MS = 75_000
# Modbus over Serial Line V1.02, section 2.2: 0 is everybody, 248 to 255 nobody.
_MODBUS_ADDRESSES = range(1, 248)

# A full spool turns a day's packs into one (firmware/node/thinning.py), with two records per channel; that one is the longest.
MAX_CHANNELS, MAX_THINNED_BYTES = 27, 2_044
_THINNED_HEAD_BYTES = 130  # its bookkeeping, every number at its longest


@dataclass(frozen=True)
class Accuracy:
    """Standard uncertainty of a probe fresh from its maker, in the published unit.

    `absolute` is a standard uncertainty; `relative` is a ratio of the value (0.05 = 5 %). The two are
    independent of each other. As a calibration: slope 1, offset 0, u² = absolute² + (relative · value)².
    """

    absolute: float
    relative: float

    def standard_uncertainty(self, value: float) -> float:
        """u (k = 1) at `value`, both in the published unit.

        >>> Accuracy(absolute=3.0, relative=0.5).standard_uncertainty(8.0)
        5.0
        """
        return hypot(self.absolute, self.relative * value)


@dataclass(frozen=True)
class FactoryLine:
    """What a probe fresh from its maker means by its converted reading: value = offset + slope · reading.

    Slope 1 and offset 0 but for a probe whose maker sells it in several spans.
    """

    slope: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Sdi12Field:
    """Where a number stands in an SDI-12 sensor's answer (0 is the first), and how many of its decimals the raw unit keeps."""

    position: int
    decimals: int


@dataclass(frozen=True)
class Sdi12:
    """How an SDI-12 sensor is asked. `is_concurrent`: by `CC`, so that others on its wire measure at the same time."""

    is_concurrent: bool


@dataclass(frozen=True)
class Quantity:
    """One quantity that a sensor type delivers; `minimum`/`maximum` in `unit`, `raw_…` in `raw_unit`.

    `drift_per_year`: the standard uncertainty that a year without calibration adds, independent of `accuracy`.
    `register`: where a Modbus probe keeps it; `spoken.WIPE_AGE` for what the node itself knows of the probe's wiper.
    `sdi12` only where the type is an SDI-12 sensor.
    """

    property: str
    unit: str
    raw_unit: str
    minimum: float
    maximum: float
    raw_minimum: float
    raw_maximum: float
    raw_resolution: float
    accuracy: Accuracy
    drift_per_year: Accuracy
    factory: FactoryLine = FactoryLine()
    register: spoken.Register | str | None = None
    sdi12: Sdi12Field | None = None


@dataclass(frozen=True)
class ErrorValue:
    """A raw value that is a fault's signature; the node sends `reason` in its place."""

    property: str
    raw: float
    reason: str
    meaning: str


@dataclass(frozen=True)
class ErrorSign:
    """What a person sees, and does, when a node sends `reason` for a probe of this type."""

    reason: str
    sign: str
    remedy: str


@dataclass(frozen=True)
class ProbeSupply:
    """What a probe is fed with: the id of a supply (`supplies/*.toml`), and the voltages that it bears."""

    rail: str
    minimum_v: float
    maximum_v: float


@dataclass(frozen=True)
class ProbeCurrents:
    """What a probe draws from its supply in each phase; `asleep_ua` counts only where the supply stays on."""

    warm_up_ma: float
    stabilise_ma: float
    measure_ma: float
    asleep_ua: float


@dataclass(frozen=True)
class Wire:
    """One wire of a probe's lead. `to`: "supply", "ground" or a terminal of the probe's interface."""

    colour: str
    signal: str
    to: str


@dataclass(frozen=True)
class CalibrationProcedure:
    """How a probe of this type is calibrated, and how often."""

    against: str
    every_days: int
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Mounting:
    """How a probe is put in its place. `hole_mm` is a drill's diameter, 0 when there is no hole."""

    place: MountingPlace
    hole_mm: int
    length_mm: int
    cable_mm: float
    cable_m: float
    orientation: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class SensorType:
    """A kind of probe: how it is spoken to, how long it takes, what it delivers and how well; how it is fed, wired,
    mounted, calibrated and bought."""

    id: str
    title: str
    manufacturer: str
    driver: str
    interface: str
    warm_up_ms: int
    stabilise_ms: int
    measure_ms: int
    quantities: tuple[Quantity, ...]
    error_values: tuple[ErrorValue, ...]
    error_signs: tuple[ErrorSign, ...]
    supply: ProbeSupply
    currents: ProbeCurrents
    wires: tuple[Wire, ...]
    calibration: CalibrationProcedure
    mounting: Mounting
    parts: tuple[Part, ...]
    source: str
    """Where it is said what it measures and how well: what a factory calibration refers to."""
    fitting_source: str
    """Where supply, currents, wires, drift and mounting come from; empty when `source` says it all."""
    assumed: tuple[str, ...]
    modbus: spoken.Modbus | None = None
    ezo: spoken.Ezo | None = None
    sdi12: Sdi12 | None = None

    @property
    def ready_ms(self) -> int:
        """From power to value."""
        return self.warm_up_ms + self.stabilise_ms + self.measure_ms

    def quantity(self, property_name: str) -> Quantity:
        """The quantity with this property. Raises CatalogueError when the type does not deliver it."""
        for quantity in self.quantities:
            if quantity.property == property_name:
                return quantity
        raise CatalogueError(f"Sensor type {self.id} does not deliver {property_name}.")


@dataclass(frozen=True)
class Channel:
    """One quantity of one slot: `key` is its name on the wire.

    `conversion` names the server's formula raw → published; `needs` maps that formula's further inputs to the
    keys of the same node's channels that carry them.
    """

    key: str
    property: str
    unit: str
    raw_unit: str
    depth_cm: int
    conversion: str
    needs: Mapping[str, str]


@dataclass(frozen=True)
class Slot:
    """A place for one probe on the node's board: its pins (GPIO numbers) and driver options.

    Probes with the same `hole` go into the same hole in the soil; it is the slot's own id when the file does not say.
    `every_s`: read only so often, a whole multiple of the model's `sample_every_s`; None at every sample.
    """

    id: str
    sensor_type: str
    depth_cm: int
    every_s: int | None
    hole: str
    pins: Mapping[str, int]
    options: Mapping[str, Any]
    channels: tuple[Channel, ...]


@dataclass(frozen=True)
class Limit:
    """A limit of a channel, in its raw unit (a fall: per hour). It is crossed beyond `value` and ends at `clear`."""

    channel: str
    kind: str
    value: float
    clear: float


@dataclass(frozen=True)
class BatteryLimits:
    """Battery voltages below which a node publishes rarely, leaves its radio off, and stops before the cell is damaged."""

    low_mv: int
    mute_mv: int
    stop_mv: int


@dataclass(frozen=True)
class Battery:
    """The node's battery: `cells` of the same kind in parallel."""

    cells: int
    cell_mah: int
    voltage_v: float


@dataclass(frozen=True)
class NodeModel:
    """What a node is built as: its board, its sensor slots, its box and battery. `parts`: what neither of them names.

    `led`, `button`: GPIOs of the lamp and the button for whoever stands before the node. `urgent_every_s`: how often it samples and
    publishes while one of its `limits` is crossed.
    """

    id: str
    title: str
    board: str
    site_kind: SiteKind
    sample_every_s: int
    publish_every_s: int
    slots: tuple[Slot, ...]
    enclosure: str
    battery: Battery
    parts: tuple[Part, ...]
    source: str
    assumed: tuple[str, ...]
    urgent_every_s: int | None = None
    limits: tuple[Limit, ...] = ()
    battery_limits: BatteryLimits | None = None
    led: int | None = None
    button: int | None = None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All channels in wire order."""
        return tuple(channel for slot in self.slots for channel in slot.channels)

    @property
    def panel(self) -> dict[str, int]:
        """The GPIOs of lamp and button, as far as there are any, by the keys that name them."""
        pins = {"led": self.led, "button": self.button}
        return {key: gpio for key, gpio in pins.items() if gpio is not None}

    def interval_s(self, slot: Slot) -> int:
        """How often the slot's probe is read."""
        return slot.every_s or self.sample_every_s

    def slot_of(self, key: str) -> Slot:
        """The slot that delivers channel `key`. Raises CatalogueError when there is none."""
        for slot in self.slots:
            if any(channel.key == key for channel in slot.channels):
                return slot
        raise CatalogueError(f"Node model {self.id} has no channel {key}.")

    def channel(self, key: str) -> Channel:
        """The channel with this wire name. Raises CatalogueError when there is none."""
        return next(channel for channel in self.slot_of(key).channels if channel.key == key)


def node_model_ids() -> tuple[str, ...]:
    """Every node model that we have data for, sorted."""
    return data_files.ids("node_models")


def sensor_type_ids() -> tuple[str, ...]:
    """Every sensor type that we have data for, sorted."""
    return data_files.ids("sensors")


def load_node_model(node_model_id: str) -> NodeModel:
    """The node model of this id. Raises CatalogueError when unknown or wrongly written."""
    return _load_node_model(node_model_id, data_files.folders())


def load_sensor_type(sensor_type_id: str) -> SensorType:
    """The sensor type of this id. Raises CatalogueError when unknown or wrongly written."""
    return _load_sensor_type(sensor_type_id, data_files.folders())


def parse_sensor_type(text: str, *, name: str) -> SensorType:
    """A sensor type from TOML text; `name` is what an error calls the file."""
    table = StrictTable.from_toml(text, name, CatalogueError)
    sensor_type = SensorType(
        id=table.text("id"),
        title=table.text("title"),
        manufacturer=table.text("manufacturer"),
        driver=table.text("driver"),
        interface=table.text("interface"),
        warm_up_ms=table.count("warm_up_ms"),
        stabilise_ms=table.count("stabilise_ms"),
        measure_ms=table.count("measure_ms"),
        quantities=table.rows("quantities", _quantity, at_least=1),
        error_values=table.rows("error_values", _error_value, at_least=0),
        error_signs=table.rows("error_signs", _error_sign, at_least=1),
        supply=table.one("supply", _supply),
        currents=table.one("current", _currents),
        wires=table.rows("wires", _wire, at_least=0),
        calibration=table.one("calibration", _calibration),
        mounting=table.one("mounting", _mounting),
        parts=read_parts(table),
        source=table.text("source"),
        fitting_source=table.text("fitting_source") if table.has("fitting_source") else "",
        assumed=table.paths("assumed"),
        modbus=table.one("modbus", spoken.modbus) if table.has("modbus") else None,
        ezo=table.one("ezo", spoken.ezo) if table.has("ezo") else None,
        sdi12=table.one("sdi12", _sdi12) if table.has("sdi12") else None,
    )
    table.finish()
    _check_sensor_type(sensor_type, name)
    return sensor_type


def parse_node_model(text: str, *, name: str) -> NodeModel:
    """A node model from TOML text; `name` is what an error calls the file.

    Checked beyond the shape: wire names are unique, a channel is one that its sensor type delivers in that raw
    unit, every `needs` points at a channel of the same node that is read as often, intervals are such that a node can
    keep them, the channels fit into its packs, and the pins fit the board (`pins.check_pins`).
    """
    table = StrictTable.from_toml(text, name, CatalogueError)
    model = NodeModel(
        id=table.text("id"),
        title=table.text("title"),
        board=table.text("board"),
        site_kind=cast("SiteKind", table.choice("site_kind", get_args(SiteKind))),
        sample_every_s=table.whole("sample_every_s"),
        publish_every_s=table.whole("publish_every_s"),
        slots=table.rows("slots", _slot, at_least=1),
        enclosure=table.text("enclosure"),
        battery=table.one("battery", _battery),
        parts=read_parts(table),
        source=table.text("source"),
        assumed=table.paths("assumed"),
        urgent_every_s=table.whole("urgent_every_s") if table.has("urgent_every_s") else None,
        limits=table.rows("limits", _limit, at_least=0),
        battery_limits=table.one("battery_limits", _battery_limits)
        if table.has("battery_limits")
        else None,
        led=table.whole("led") if table.has("led") else None,
        button=table.whole("button") if table.has("button") else None,
    )
    table.finish()
    _check_node_model(model, name)
    pins.check_pins(model, load_board(model.board), name=name)
    _check_packs(model, name)
    return model


@cache
def _load_node_model(node_model_id: str, among: tuple[Path, ...]) -> NodeModel:
    text, name = data_files.read("node_models", node_model_id, among)
    model = parse_node_model(text, name=name)
    data_files.check_id(model.id, node_model_id, name)
    return model


@cache
def _load_sensor_type(sensor_type_id: str, among: tuple[Path, ...]) -> SensorType:
    text, name = data_files.read("sensors", sensor_type_id, among)
    sensor_type = parse_sensor_type(text, name=name)
    data_files.check_id(sensor_type.id, sensor_type_id, name)
    return sensor_type


def _check_sensor_type(sensor_type: SensorType, name: str) -> None:
    if sensor_type.ready_ms >= _SAMPLING_MS:
        raise CatalogueError(
            f"{name}: the probe is ready after {sensor_type.ready_ms} ms, but a node waits {_SAMPLING_MS} ms for all its probes."
        )
    for quantity in sensor_type.quantities:
        _check_spans(quantity, name)
        if (quantity.sdi12 is None) != (sensor_type.sdi12 is None):
            raise CatalogueError(
                f"{name}: {quantity.property} needs sdi12 = {{ position, decimals }} just when the type has [sdi12]."
            )
    _check_circuit(sensor_type, name)
    if (sensor_type.modbus is not None) != (sensor_type.driver == _MODBUS_DRIVER):
        raise CatalogueError(f"{name}: the driver modbus and the table modbus go together.")
    if (sensor_type.ezo is not None) != (sensor_type.driver == _EZO_DRIVER):
        raise CatalogueError(f"{name}: the driver ezo and the table ezo go together.")
    if sensor_type.modbus is not None:
        _check_modbus(sensor_type, sensor_type.modbus, name)


def _check_spans(quantity: Quantity, name: str) -> None:
    for least, most, which in (
        (quantity.minimum, quantity.maximum, "minimum"),
        (quantity.raw_minimum, quantity.raw_maximum, "raw_minimum"),
    ):
        if least >= most:
            raise CatalogueError(
                f"{name}: {which} of {quantity.property} must be below {which.replace('min', 'max')}."
            )


def _check_circuit(sensor_type: SensorType, name: str) -> None:
    try:
        interface = load_interface(sensor_type.interface)
        supply = load_supply(sensor_type.supply.rail)
    except CatalogueError as mistake:
        raise CatalogueError(f"{name}: {mistake}") from mistake
    probe = sensor_type.supply
    if not probe.minimum_v <= supply.voltage_v <= probe.maximum_v:
        raise CatalogueError(
            f"{name}: supply {supply.id} gives {supply.voltage_v:g} V, but the probe bears "
            f"{probe.minimum_v:g} to {probe.maximum_v:g} V."
        )
    terminals = {SUPPLY_TERMINAL, GROUND_TERMINAL, *(one.id for one in interface.terminals)}
    for wire in sensor_type.wires:
        if wire.to not in terminals:
            raise CatalogueError(
                f"{name}: the {wire.colour} wire goes to {wire.to}, but interface {interface.id} has "
                f"{', '.join(sorted(terminals))}."
            )


def _check_intervals(model: NodeModel, name: str) -> None:
    sample_s, publish_s = model.sample_every_s, model.publish_every_s
    if not _SHORTEST_S <= sample_s <= publish_s <= _LONGEST_S:
        raise CatalogueError(
            f"{name}: sample_every_s ({sample_s}) must be at least {_SHORTEST_S} and at most publish_every_s "
            f"({publish_s}), which is at most {_LONGEST_S}."
        )
    for slot in model.slots:
        every_s = slot.every_s
        if every_s is None:
            continue
        if load_sensor_type(slot.sensor_type).interface == BATTERY:
            raise CatalogueError(
                f"{name}: slot {slot.id} is the battery, which is read at every sample; remove its every_s."
            )
        if every_s % sample_s or not sample_s <= every_s <= _LONGEST_S:
            raise CatalogueError(
                f"{name}: slot {slot.id}: every_s must be a whole multiple of sample_every_s ({sample_s}) and at most "
                f"{_LONGEST_S}, not {every_s}."
            )


def _check_needed(model: NodeModel, slot: Slot, channel: Channel, needed: str, name: str) -> None:
    """What a channel needs must be in every pack that it is in."""
    if needed not in (other.key for other in model.channels):
        raise CatalogueError(
            f"{name}: channel {channel.key} needs {needed}, which the node does not have."
        )
    own_s, needed_s = model.interval_s(slot), model.interval_s(model.slot_of(needed))
    if own_s % needed_s:
        raise CatalogueError(
            f"{name}: channel {channel.key} is read every {own_s} s and needs {needed}, which is read every {needed_s} s "
            "only."
        )


def _check_node_model(model: NodeModel, name: str) -> None:
    keys = [channel.key for channel in model.channels]
    _refuse_twice(keys, f"{name}: channel key {{}} is used twice.")
    _refuse_twice([slot.id for slot in model.slots], f"{name}: slot id {{}} is used twice.")
    _check_intervals(model, name)
    _check_limits(model, name)
    for slot in model.slots:
        sensor_type = load_sensor_type(slot.sensor_type)
        if sensor_type.ezo is not None and sensor_type.ezo.is_told:
            _check_told_temperature(model, slot, name)
        has_wiper = sensor_type.modbus is not None and sensor_type.modbus.wipe is not None
        if has_wiper and type(slot.options.get("wipe_every_s")) is not int:
            raise CatalogueError(
                f"{name}: slot {slot.id} has a wiper; its options must say wipe_every_s."
            )
        if sensor_type.modbus is not None:
            _check_modbus_address(slot, name)
        if sensor_type.interface == BATTERY:
            _check_battery(model, sensor_type, name)
        for channel in slot.channels:
            quantity = sensor_type.quantity(channel.property)
            if (channel.unit, channel.raw_unit) != (quantity.unit, quantity.raw_unit):
                raise CatalogueError(
                    f"{name}: channel {channel.key} is in {channel.unit} from {channel.raw_unit}, but sensor "
                    f"type {sensor_type.id} gives {quantity.unit} from {quantity.raw_unit}."
                )
            for needed in channel.needs.values():
                _check_needed(model, slot, channel, needed, name)


def _check_packs(model: NodeModel, name: str) -> None:
    if len(model.channels) > MAX_CHANNELS:
        raise CatalogueError(
            f"{name}: the node has {len(model.channels)} channels, and its packs hold {MAX_CHANNELS}; make two nodes of it."
        )
    size = _THINNED_HEAD_BYTES + sum(_thinned_bytes(channel.key) for channel in model.channels)
    if size > MAX_THINNED_BYTES:
        raise CatalogueError(
            f"{name}: a day of the node's packs may take {size} bytes, and it keeps {MAX_THINNED_BYTES}; shorten the channel keys."
        )


def _thinned_bytes(key: str) -> int:
    """What the lowest and highest value of a channel take at most: maps of a name and a number of eight bytes, as CBOR."""
    name = len(f"{key}.min".encode())
    return 2 * (2 + (1 if name < 24 else 2) + name + 1 + 9)


def _check_modbus_address(slot: Slot, name: str) -> None:
    address = slot.options.get("address")
    if type(address) is not int or address not in _MODBUS_ADDRESSES:
        raise CatalogueError(
            f"{name}: slot {slot.id} speaks Modbus; its options must say the probe's address, from "
            f"{_MODBUS_ADDRESSES[0]} to {_MODBUS_ADDRESSES[-1]}."
        )


def _check_battery(model: NodeModel, sensor_type: SensorType, name: str) -> None:
    most_mv = max(quantity.maximum for quantity in sensor_type.quantities)
    if model.battery.voltage_v * 1000 > most_mv:
        raise CatalogueError(
            f"{name}: the battery has {model.battery.voltage_v:g} V, but a node bears and reads {most_mv / 1000:g} V at most."
        )


def _check_limits(model: NodeModel, name: str) -> None:
    urgent_s = model.urgent_every_s
    if (urgent_s is None) != (not model.limits):
        raise CatalogueError(f"{name}: urgent_every_s and limits go together.")
    if urgent_s is not None and not _SHORTEST_S <= urgent_s <= model.sample_every_s:
        raise CatalogueError(
            f"{name}: urgent_every_s must be from {_SHORTEST_S} to sample_every_s ({model.sample_every_s}), not {urgent_s}."
        )
    if len(model.limits) > _MOST_LIMITS:
        raise CatalogueError(f"{name}: a node watches {_MOST_LIMITS} limits at most.")
    keys = [channel.key for channel in model.channels]
    for limit in model.limits:
        if limit.channel not in keys:
            raise CatalogueError(
                f"{name}: a limit is of {limit.channel}, which the node does not have."
            )
        is_between = (
            limit.clear > limit.value if limit.kind == "below" else limit.clear < limit.value
        )
        if not is_between:
            side = "above" if limit.kind == "below" else "below"
            raise CatalogueError(
                f"{name}: the limit {limit.channel} {limit.kind} {limit.value:g} must end {side} that, not at {limit.clear:g}."
            )


def registers_of(sensor_type: SensorType) -> tuple[spoken.Register, ...]:
    """Every register of a Modbus probe that its file names, guards last."""
    guards = sensor_type.modbus.guards if sensor_type.modbus is not None else ()
    places = [quantity.register for quantity in sensor_type.quantities]
    values = [place for place in places if isinstance(place, spoken.Register)]
    return (*values, *(guard.register for guard in guards))


def _check_told_temperature(model: NodeModel, slot: Slot, name: str) -> None:
    for channel in slot.channels:
        if "temperature" not in channel.needs:
            raise CatalogueError(
                f"{name}: channel {channel.key} needs a temperature, which slot {slot.id} is told."
            )
        needed = channel.needs["temperature"]
        if needed in (other.key for other in model.channels) and (
            model.channel(needed).raw_unit not in spoken.TEMPERATURE_PARTS
        ):
            raise CatalogueError(
                f"{name}: slot {slot.id} cannot be told {needed}; a node reads temperatures in "
                f"{', '.join(spoken.TEMPERATURE_PARTS)}."
            )


def _check_modbus(sensor_type: SensorType, modbus: spoken.Modbus, name: str) -> None:
    for quantity in sensor_type.quantities:
        if quantity.register is None:
            raise CatalogueError(f"{name}: {quantity.property} has no register.")
        if quantity.register == spoken.WIPE_AGE and modbus.wipe is None:
            raise CatalogueError(
                f"{name}: {quantity.property} is of a wiper that modbus.wipe lacks."
            )
        if not (quantity.raw_minimum.is_integer() and quantity.raw_maximum.is_integer()):
            raise CatalogueError(
                f"{name}: raw_minimum and raw_maximum of {quantity.property} must be whole numbers; "
                "a node compares with no others."
            )
    for register in registers_of(sensor_type):
        if modbus.reads and not any(
            first <= register.at and register.end <= first + count for first, count in modbus.reads
        ):
            raise CatalogueError(f"{name}: no read covers register {register.at}.")
    known = [quantity.property for quantity in sensor_type.quantities]
    for guard in modbus.guards:
        for spoken_for in guard.properties:
            if spoken_for not in known:
                raise CatalogueError(
                    f"{name}: a guard speaks for {spoken_for}, which is not delivered."
                )


def _refuse_twice(values: list[Any], sentence: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise CatalogueError(sentence.format(value))


def _property(table: StrictTable) -> str:
    name = table.text("property")
    if name not in vocabulary.PROPERTIES:
        known = ", ".join(vocabulary.PROPERTIES)
        raise table.mistake(f"property {name} is none that the server knows: {known}.")
    return name


def _unit(table: StrictTable, of: str) -> str:
    unit = table.text("unit")
    if unit != vocabulary.PROPERTIES[of]:
        raise table.mistake(f"unit of {of} must be {vocabulary.PROPERTIES[of]}, not {unit}.")
    return unit


def _quantity(table: StrictTable) -> Quantity:
    observed_property = _property(table)
    return Quantity(
        property=observed_property,
        unit=_unit(table, observed_property),
        raw_unit=table.text("raw_unit"),
        minimum=table.number("minimum"),
        maximum=table.number("maximum"),
        raw_minimum=table.number("raw_minimum"),
        raw_maximum=table.number("raw_maximum"),
        raw_resolution=table.number("raw_resolution"),
        accuracy=table.one("accuracy", _accuracy),
        drift_per_year=table.one("drift_per_year", _accuracy),
        factory=table.one("factory", _factory_line) if table.has("factory") else FactoryLine(),
        register=_register(table),
        sdi12=table.one("sdi12", _sdi12_field) if table.has("sdi12") else None,
    )


def _limit(table: StrictTable) -> Limit:
    kind = table.text("kind")
    if kind not in _LIMIT_KINDS:
        raise table.mistake(f"kind must be one of {', '.join(_LIMIT_KINDS)}, not {kind}.")
    return Limit(table.text("channel"), kind, table.number("value"), table.number("clear"))


def _battery_limits(table: StrictTable) -> BatteryLimits:
    limits = BatteryLimits(table.whole("low_mv"), table.whole("mute_mv"), table.whole("stop_mv"))
    if not limits.low_mv > limits.mute_mv > limits.stop_mv > 0:
        raise table.mistake("low_mv must be above mute_mv, and that above stop_mv.")
    return limits


def _factory_line(table: StrictTable) -> FactoryLine:
    return FactoryLine(slope=table.number("slope"), offset=table.number("offset", 0.0))


def _register(table: StrictTable) -> spoken.Register | str | None:
    if not table.has("register"):
        return None
    if table.holds_text("register"):
        place = table.text("register")
        if place != spoken.WIPE_AGE:
            raise table.mistake(f"register must be a table or {spoken.WIPE_AGE}, not {place}.")
        return place
    return table.one("register", spoken.register)


def _sdi12_field(table: StrictTable) -> Sdi12Field:
    field = Sdi12Field(position=table.whole("position"), decimals=table.whole("decimals"))
    if not (0 <= field.position <= 8 and 0 <= field.decimals <= 6):
        raise CatalogueError(
            f"{table.where}: position must be from 0 to 8 and decimals from 0 to 6."
        )
    return field


def _sdi12(table: StrictTable) -> Sdi12:
    return Sdi12(is_concurrent=table.truth("is_concurrent", default=False))


def _accuracy(table: StrictTable) -> Accuracy:
    return Accuracy(absolute=table.amount("absolute"), relative=table.amount("relative"))


def _error_value(table: StrictTable) -> ErrorValue:
    return ErrorValue(
        property=table.text("property"),
        raw=table.number("raw"),
        reason=table.choice("reason", spoken.REASONS),
        meaning=table.text("meaning"),
    )


def _error_sign(table: StrictTable) -> ErrorSign:
    return ErrorSign(
        reason=table.choice("reason", spoken.REASONS),
        sign=table.text("sign"),
        remedy=table.text("remedy"),
    )


def _supply(table: StrictTable) -> ProbeSupply:
    return ProbeSupply(
        rail=table.text("rail"),
        minimum_v=table.number("minimum_v"),
        maximum_v=table.number("maximum_v"),
    )


def _currents(table: StrictTable) -> ProbeCurrents:
    return ProbeCurrents(
        **{name: table.amount(name) for name in ProbeCurrents.__dataclass_fields__}
    )


def _wire(table: StrictTable) -> Wire:
    return Wire(colour=table.text("colour"), signal=table.text("signal"), to=table.text("to"))


def _calibration(table: StrictTable) -> CalibrationProcedure:
    return CalibrationProcedure(
        against=table.text("against"),
        every_days=table.count("every_days", at_least=1),
        steps=table.texts("steps"),
    )


def _mounting(table: StrictTable) -> Mounting:
    return Mounting(
        place=cast("MountingPlace", table.choice("place", get_args(MountingPlace))),
        hole_mm=table.count("hole_mm"),
        length_mm=table.count("length_mm"),
        cable_mm=table.amount("cable_mm"),
        cable_m=table.amount("cable_m"),
        orientation=table.text("orientation"),
        steps=table.texts("steps"),
    )


def _battery(table: StrictTable) -> Battery:
    return Battery(
        cells=table.count("cells", at_least=1),
        cell_mah=table.count("cell_mah", at_least=1),
        voltage_v=table.amount("voltage_v", above_zero=True),
    )


def _slot(table: StrictTable) -> Slot:
    depth_cm, slot_id = table.count("depth_cm"), table.text("id")
    return Slot(
        id=slot_id,
        sensor_type=table.text("sensor_type"),
        depth_cm=depth_cm,
        every_s=table.whole("every_s") if table.has("every_s") else None,
        hole=table.text("hole", slot_id),
        pins=table.mapping("pins", int, "a whole number"),
        options=table.mapping("options", object, "a value"),
        channels=table.rows("channels", lambda row: _channel(row, depth_cm), at_least=1),
    )


def _channel(table: StrictTable, depth_cm: int) -> Channel:
    key = table.text("key")
    if vocabulary.CHANNEL_KEY.fullmatch(key) is None:
        raise table.mistake(
            "key must be 1 to 32 small letters, digits and underlines, a letter first; it is the channel's name on the wire."
        )
    channel = Channel(
        key=key,
        property=table.text("property"),
        unit=table.text("unit"),
        raw_unit=table.text("raw_unit"),
        depth_cm=depth_cm,
        conversion=table.choice("conversion", tuple(vocabulary.CONVERSIONS)),
        needs=table.mapping("needs", str, "a text"),
    )
    inputs = vocabulary.CONVERSIONS[channel.conversion]
    for needed in channel.needs:
        if needed not in inputs:
            raise table.mistake(
                f"conversion {channel.conversion} works with {', '.join(inputs) or 'nothing else'}, not with {needed}."
            )
    return channel
