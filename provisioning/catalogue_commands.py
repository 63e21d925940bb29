"""`provision boards|sensors|wiring|parts`: what a node is built of, from the hardware data."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hardware import energy
from hardware.assumptions import assumptions, in_words
from hardware.boards import BoardType, board_ids, load_board
from hardware.catalogue import (
    NodeModel,
    Quantity,
    SensorType,
    Slot,
    load_node_model,
    load_sensor_type,
    node_model_ids,
    sensor_type_ids,
)
from hardware.connections import (
    clamp_of,
    interface_of,
    panel_circuits,
    sensor_type_of,
    supply_of,
)
from hardware.mounting_sheet import mounting_sheet
from hardware.parts import PRICE_CLASSES
from hardware.parts_list import Line, parts_list
from hardware.pins import check_pins
from hardware.wireviz_harness import wireviz_harness
from hardware.wiring_diagram import wiring_diagram
from provisioning.errors import BenchError
from provisioning.files import write_whole


class _Id(click.ParamType[str]):
    """An id that there is a data file for when the command runs."""

    def __init__(self, name: str, known: Callable[[], tuple[str, ...]]) -> None:
        self.name = name
        self._known = known

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        if value not in self._known():
            known = ", ".join(map(repr, self._known()))
            self.fail(f"{value!r} is not one of {known}.", param, ctx)
        return str(value)


_BOARD, _MODEL = _Id("board", board_ids), _Id("model", node_model_ids)
_INTERVAL = click.IntRange(min=60, max=86_400)  # what a node model may say
_SENSOR = _Id("sensor", sensor_type_ids)

# More than any city has trees; beyond it a quantity is a slip of the finger.
_MOST_NODES = 100_000

# Below this, who is fed for whom explains nothing.
_WORTH_SAYING_MAH = 0.5

_ASSUMED_LEGEND = (
    "\n\nASSUMED: so many figures of its file that no source covers; provision {} names them."
)

_json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on one line of stdout."
)
_model_argument = click.argument("model_id", metavar="MODEL", type=_MODEL)
_board_option = click.option(
    "--board", "board_id", type=_BOARD, help="Another board than the model's."
)


@click.command()
@click.argument("board_id", metavar="[BOARD]", required=False, type=_BOARD)
@_json_option
def boards(board_id: str | None, as_json: bool) -> None:
    """The boards that a node can be built on, or one of them with all its pins and figures.

    Example: provision boards esp32-lpkit
    """
    found = [load_board(one) for one in ([board_id] if board_id else board_ids())]
    if as_json:
        click.echo(json.dumps(_plain(found[0]) if board_id else {"boards": _plain(found)}))
    elif board_id:
        click.echo(_board_in_words(found[0]))
    else:
        click.echo(
            _table(
                ("BOARD", "CHIP", "FLASH", "FREE PINS", "ADC1", "ASLEEP", "AWAKE", "ASSUMED"),
                map(_board_row, found),
            )
            + _ASSUMED_LEGEND.format("boards BOARD")
        )


@click.command()
@click.argument("sensor_id", metavar="[SENSOR]", required=False, type=_SENSOR)
@_json_option
def sensors(sensor_id: str | None, as_json: bool) -> None:
    """The probes that a node can read, or one of them with wires, limits, calibration and error signs.

    Example: provision sensors ds18b20
    """
    found = [load_sensor_type(one) for one in ([sensor_id] if sensor_id else sensor_type_ids())]
    if as_json:
        click.echo(json.dumps(_plain(found[0]) if sensor_id else {"sensors": _plain(found)}))
    elif sensor_id:
        click.echo(_sensor_in_words(found[0]))
    else:
        rows = (row for one in found for row in _sensor_rows(one))
        click.echo(
            _table(
                (
                    "SENSOR",
                    "INTERFACE",
                    "READY",
                    "DELIVERS",
                    "FROM",
                    "TO",
                    "UNIT",
                    "u AT ITS MIDDLE",
                    "ASSUMED",
                ),
                rows,
            )
            + _ASSUMED_LEGEND.format("sensors SENSOR")
        )


@click.command()
@_model_argument
@_board_option
@click.option(
    "--out",
    "diagram_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the wiring diagram to this file (.svg).",
)
@click.option(
    "--mounting",
    "sheet_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the drill and mounting sheet to this file (.html, prints on A4).",
)
@click.option(
    "--wireviz",
    "harness_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the same as a harness for WireViz to this file (.yml), to draw and change it there.",
)
@_json_option
def wiring(
    model_id: str,
    board_id: str | None,
    diagram_path: Path | None,
    sheet_path: Path | None,
    harness_path: Path | None,
    as_json: bool,
) -> None:
    """Which pin and which wire goes where: as a list, as a diagram, as a sheet for mounting.

    Example: provision wiring tree-3 --out tree-3.svg --mounting tree-3.html
    """
    _want_suffix(diagram_path, "--out", ".svg")
    _want_suffix(sheet_path, "--mounting", ".html")
    _want_suffix(harness_path, "--wireviz", ".yml", ".yaml")
    model, board = _model_on_board(model_id, board_id)
    _want_folders(path for path in (diagram_path, sheet_path, harness_path) if path is not None)
    wanted = [
        (path, make(model, board))
        for path, make in (
            (diagram_path, wiring_diagram),
            (sheet_path, mounting_sheet),
            (harness_path, wireviz_harness),
        )
        if path is not None
    ]
    for path, text in wanted:
        write_whole(path, text.encode("utf-8"))
    written = [path for path, _ in wanted]
    pins, wires = _pin_rows(model, board), _wire_rows(model)
    if as_json:
        content = {"model": model.id, "board": board.id, "pins": pins, "wires": wires}
        content["assumed"] = _plain(assumptions(model, board, "wiring"))
        click.echo(json.dumps({**content, "files": [str(path) for path in written]}))
    elif written:
        click.echo("\n".join(f"Wrote {path}." for path in written))
    else:
        click.echo(_rows_as_table(pins) + "\n\n" + _rows_as_table(wires))
        _say_assumed(assumptions(model, board, "wiring"))


@click.command()
@_model_argument
@_board_option
@click.option(
    "--nodes",
    type=click.IntRange(min=1, max=_MOST_NODES),
    help="For so many nodes; 1 when left out.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values for a spreadsheet.")
@click.option(
    "--energy",
    "wants_energy",
    is_flag=True,
    help="Instead: what the node takes from its battery in a day, beside the goal.",
)
@click.option(
    "--sample-every",
    "sample_every_s",
    type=_INTERVAL,
    metavar="SECONDS",
    help="With --energy: another interval than the model's.",
)
@click.option(
    "--publish-every",
    "publish_every_s",
    type=_INTERVAL,
    metavar="SECONDS",
    help="With --energy: another interval than the model's.",
)
@_json_option
def parts(
    model_id: str,
    board_id: str | None,
    nodes: int | None,
    as_csv: bool,
    wants_energy: bool,
    sample_every_s: int | None,
    publish_every_s: int | None,
    as_json: bool,
) -> None:
    """What to buy for a node, with quantities and manufacturers' numbers; or how long its battery lasts.

    Example: provision parts tree-3 --nodes 20 --csv
    """
    if not wants_energy and (sample_every_s or publish_every_s):
        raise click.UsageError("--sample-every and --publish-every go with --energy.")
    if as_csv and (as_json or wants_energy):
        raise click.UsageError("--csv goes with neither --json nor --energy.")
    if wants_energy and nodes is not None:
        raise click.UsageError("--energy is of one node; leave --nodes out.")
    nodes = nodes or 1
    model, board = _model_on_board(model_id, board_id)
    if wants_energy:
        _say_energy(
            model,
            board,
            sample_every_s=sample_every_s or model.sample_every_s,
            publish_every_s=publish_every_s or model.publish_every_s,
            as_json=as_json,
        )
        return
    rows = [_part_row(line, nodes) for line in parts_list(model, board)]
    if as_json:
        classes = {"price_classes": PRICE_CLASSES}
        content = {"model": model.id, "board": board.id, "nodes": nodes, "parts": rows}
        content["assumed"] = _plain(assumptions(model, board, "parts"))
        click.echo(json.dumps(content | classes))
    elif as_csv:
        click.echo(_as_csv(rows), nl=False)
    else:
        click.echo(
            _rows_as_table([{**row, "used_for": "; ".join(row["used_for"])} for row in rows])
        )
        click.echo(
            "\nPrice classes: "
            + ", ".join(f"{key} {words}" for key, words in PRICE_CLASSES.items())
            + ". They are our estimate."
        )
        _say_assumed(assumptions(model, board, "parts"))


def _say_assumed(found: dict[str, tuple[str, ...]]) -> None:
    """What nobody has stated, where there is any."""
    if found:
        click.echo(f"\n{in_words(found)}")


def _model_on_board(model_id: str, board_id: str | None) -> tuple[NodeModel, BoardType]:
    """The model and the board to build it on. Raises CatalogueError when the model does not fit another board."""
    model = load_node_model(model_id)
    board = load_board(board_id or model.board)
    check_pins(model, board, name=model.id)
    return model, board


def _want_suffix(path: Path | None, option: str, *suffixes: str) -> None:
    if path is not None and path.suffix.lower() not in suffixes:
        raise click.BadParameter(
            f"{path} must end with {' or '.join(suffixes)}.", param_hint=option
        )


def _want_folders(paths: Iterable[Path]) -> None:
    """Before the first file is written: all of them, or none."""
    for path in paths:
        if not path.parent.is_dir():
            raise BenchError(f"The folder {path.parent} does not exist; make it first.")


# --- energy ---


def _say_energy(
    model: NodeModel,
    board: BoardType,
    *,
    sample_every_s: int,
    publish_every_s: int,
    as_json: bool,
) -> None:
    if publish_every_s < sample_every_s:
        raise click.UsageError("A node cannot publish more often than it samples.")
    wakes = energy.planned_wakes(model, board, sample_every_s=sample_every_s)
    _want_time_to_sleep(wakes, sample_every_s)
    result = energy.estimate(model, board, wakes, publish_every_s=publish_every_s)
    urgent, field = energy.urgent_day(model, board), energy.field_mode(model, board)
    battery_mah = model.battery.cells * model.battery.cell_mah
    if as_json:
        content = {
            "model": model.id,
            "board": board.id,
            "sample_every_s": sample_every_s,
            "publish_every_s": publish_every_s,
            "mah_per_day": round(result.mah_per_day, 3),
            "goal_mah_per_day": result.goal_mah_per_day,
            "is_within_goal": result.is_within_goal,
            "for_others_mah_per_day": round(result.for_others_mah, 3),
            "battery_mah": battery_mah,
            "battery_days": round(result.battery_days),
            "urgent_day": _urgent_plain(model, urgent),
            "field_mode": field and {"wakes": field.wakes, "mah": round(field.mah, 3)},
            "items": [
                {"what": item.what, "mah_per_day": round(item.mah_per_day, 4)}
                for item in result.items
            ],
            "wakes": [_wakes_plain(one) for one in wakes],
            "currents": _plain(board.currents),
            "assumed": _plain(assumptions(model, board, "energy")),
        }
        click.echo(json.dumps(content))
        return
    click.echo(
        f"{model.id} on {board.id}, sampling every {sample_every_s} s, publishing every {publish_every_s} s\n"
    )
    click.echo(_table(("WHAT", "mAh/day"), _energy_rows(result, model)))
    if not result.is_within_goal:
        click.echo(f"\n{_why_missed(result)}")
    click.echo(f"\nA battery of {battery_mah} mAh lasts about {result.battery_days:.0f} days.\n")
    for line in (*_urgent_lines(model, urgent), *_field_lines(field, result)):
        click.echo(f"{line}\n")
    if len(wakes) > 1:
        click.echo(_table(("WAKES A DAY", "READ", "AWAKE"), map(_wakes_row, wakes)) + "\n")
    click.echo(_model_of_energy(board, wakes))
    _say_assumed(assumptions(model, board, "energy"))


def _want_time_to_sleep(wakes: Iterable[energy.Wakes], sample_every_s: int) -> None:
    longest_s = max(energy.longest_wake_ms(one.times) for one in wakes) / 1000
    if longest_s > sample_every_s:
        raise click.UsageError(
            f"A wake of this node takes up to {longest_s:.0f} s; it cannot sample every {sample_every_s} s."
        )


def _energy_rows(result: energy.Estimate, model: NodeModel) -> list[tuple[str, str]]:
    verdict = "met" if result.is_within_goal else "MISSED"
    return [
        *((item.what, f"{item.mah_per_day:.3f}") for item in result.items),
        ("in all", f"{result.mah_per_day:.3f}"),
        (f"goal for a {model.site_kind} node: {verdict}", f"{result.goal_mah_per_day:.3f}"),
    ]


def _why_missed(result: energy.Estimate) -> str:
    """By how much, and what takes most."""
    over_mah = result.mah_per_day - result.goal_mah_per_day
    most = sorted(result.items, key=lambda item: item.mah_per_day, reverse=True)[:3]
    lines = [
        f"The goal is missed by {over_mah:.1f} mAh a day. Most of it takes: "
        + "; ".join(f"{item.what} ({item.mah_per_day:.1f})" for item in most)
        + "."
    ]
    if result.for_others_mah >= _WORTH_SAYING_MAH:
        lines.append(
            f"{result.for_others_mah:.1f} mAh of it go to probes that are fed only because another on their supply is read."
        )
    return "\n".join(lines)


def _urgent_plain(model: NodeModel, urgent: energy.Estimate | None) -> dict[str, Any] | None:
    if urgent is None:
        return None
    return {"every_s": model.urgent_every_s, "mah_per_day": round(urgent.mah_per_day, 3)}


def _urgent_lines(model: NodeModel, urgent: energy.Estimate | None) -> Iterator[str]:
    if urgent is not None:
        channels = ", ".join(dict.fromkeys(limit.channel for limit in model.limits))
        yield (
            f"A day with a limit crossed ({channels}) takes {urgent.mah_per_day:.1f} mAh: sampled and published every"
            f" {model.urgent_every_s} s."
        )


def _field_lines(field: energy.FieldMode | None, usual: energy.Estimate) -> Iterator[str]:
    if field is not None:
        yield (
            f"One field mode ({energy.FIELD_MODE_MS // 60_000} minutes, {field.wakes} wakes that read every probe and publish)"
            f" takes {field.mah:.1f} mAh, as much as {24 * field.mah / usual.mah_per_day:.0f} hours of a usual day."
        )


def _wakes_plain(one: energy.Wakes) -> dict[str, Any]:
    return {
        "per_day": round(one.per_day, 3),
        "read": sorted(one.due),
        "times_ms": _plain(one.times),
    }


def _wakes_row(one: energy.Wakes) -> tuple[str, ...]:
    return (f"{one.per_day:g}", ", ".join(sorted(one.due)), f"{one.times.total_ms / 1000:.1f} s")


def _model_of_energy(board: BoardType, wakes: Sequence[energy.Wakes]) -> str:
    currents, times = board.currents, wakes[0].times
    awake_s = sorted({one.times.awake_ms / 1000 for one in wakes})
    spans = " to ".join(f"{one:g}" for one in dict.fromkeys((awake_s[0], awake_s[-1])))
    return (
        f"Model: on-times × currents, at the battery. A wake takes {times.boot_ms / 1000:g} s to start at "
        f"{currents.boot_ma:g} mA and {spans} s at {currents.awake_ma:g} mA; publishing adds "
        f"{times.join_ms / 1000:g} s at {currents.join_ma:g} mA and {times.talk_ms / 1000:g} s at {currents.talk_ma:g} mA. "
        f"{energy.USABLE:.0%} of the battery is used, {energy.SELF_DISCHARGE_PER_MONTH:.0%} a month lost by itself. "
        "Sources: provision boards "
        f"{board.id}, provision sensors SENSOR. Not measured on hardware."
    )


# --- rows and words ---


def _board_row(board: BoardType) -> tuple[str, ...]:
    free = board.pins.free
    return (
        board.id,
        board.chip,
        f"{board.flash_mb} MB",
        str(len(free)),
        ",".join(map(str, sorted(board.pins.adc1 & set(free)))),
        f"{board.currents.asleep_ua:g} µA",
        f"{board.currents.awake_ma:g} mA",
        str(len(board.assumed)),
    )


def _board_in_words(board: BoardType) -> str:
    pins, currents = board.pins, board.currents
    groups = [("free", pins.free)] + [
        (name.replace("_", " "), sorted(getattr(pins, name))) for name in pins.__dataclass_fields__
    ]
    lines = [
        f"{board.id}: {board.manufacturer} {board.title}, {board.chip}, {board.flash_mb} MB of flash",
        *(f"  {name + ':':12} {', '.join(map(str, group)) or 'none'}" for name, group in groups),
        f"  {'UARTs:':12} {', '.join(map(str, board.uarts))}",
        f"  {'battery:':12} read at GPIO{board.battery.pin}, divider {board.battery.divider_milli / 1000:g}",
        f"  {'draws:':12} {currents.asleep_ua:g} µA asleep, {currents.awake_ma:g} mA awake, {currents.boot_ma:g} mA "
        f"starting, {currents.join_ma:g} mA joining Wi-Fi, {currents.talk_ma:g} mA talking",
    ]
    note = [f"  {board.note}"] if board.note else []
    return "\n".join([*lines, *note, *_source_lines(board)])


def _source_lines(data: BoardType | SensorType) -> list[str]:
    assumed = [f"  assumed: {', '.join(data.assumed)}"] if data.assumed else []
    sources = [data.source]
    if isinstance(data, SensorType) and data.fitting_source:
        sources.append(data.fitting_source)
    return [*(f"  Source: {source}" for source in sources), *assumed]


def _sensor_rows(sensor_type: SensorType) -> list[tuple[str, ...]]:
    ready = f"{sensor_type.ready_ms / 1000:g} s"
    return [
        (
            *((sensor_type.id, sensor_type.interface, ready) if number == 0 else ("", "", "")),
            quantity.property,
            f"{quantity.minimum:g}",
            f"{quantity.maximum:g}",
            quantity.unit,
            f"{_middle_uncertainty(quantity):.2g}",
            str(len(sensor_type.assumed)) if number == 0 else "",
        )
        for number, quantity in enumerate(sensor_type.quantities)
    ]


def _middle_uncertainty(quantity: Quantity) -> float:
    return quantity.accuracy.standard_uncertainty((quantity.minimum + quantity.maximum) / 2)


def _sensor_in_words(sensor_type: SensorType) -> str:
    supply, currents = sensor_type.supply, sensor_type.currents
    calibration, mounting = sensor_type.calibration, sensor_type.mounting
    lines = [
        f"{sensor_type.id}: {sensor_type.manufacturer} {sensor_type.title}, {sensor_type.interface}",
        f"  ready after {sensor_type.warm_up_ms} + {sensor_type.stabilise_ms} + {sensor_type.measure_ms} ms "
        "(warm up, stabilise, measure)",
        f"  supply {supply.rail}, bears {supply.minimum_v:g} to {supply.maximum_v:g} V; draws {currents.warm_up_ma:g}, "
        f"{currents.stabilise_ma:g}, {currents.measure_ma:g} mA, {currents.asleep_ua:g} µA asleep",
        *(f"  {_quantity_in_words(quantity)}" for quantity in sensor_type.quantities),
        *(f"  wire {wire.colour}: {wire.signal}, to {wire.to}" for wire in sensor_type.wires),
        f"  calibrate every {calibration.every_days} days against {calibration.against}:",
        *(f"    {number}. {step}" for number, step in enumerate(calibration.steps, start=1)),
        f"  mount in: {mounting.place}; {mounting.orientation}",
        *(f"    {number}. {step}" for number, step in enumerate(mounting.steps, start=1)),
        "  when a node sends a reason instead of a value:",
        *(f"    {sign.reason}: {sign.sign} {sign.remedy}" for sign in sensor_type.error_signs),
        *(
            f"  buy {part.quantity} × {part.manufacturer} {part.number} ({PRICE_CLASSES[part.price_class]})"
            for part in sensor_type.parts
        ),
        *_source_lines(sensor_type),
    ]
    return "\n".join(lines)


def _quantity_in_words(quantity: Quantity) -> str:
    accuracy, drift = quantity.accuracy, quantity.drift_per_year
    return (
        f"{quantity.property}: {quantity.minimum:g} to {quantity.maximum:g} {quantity.unit} from {quantity.raw_unit}, "
        f"u = {accuracy.absolute:g} {quantity.unit} and {100 * accuracy.relative:g} %; in a year {drift.absolute:g} "
        f"{quantity.unit} and {100 * drift.relative:g} % more"
    )


def _pin_rows(model: NodeModel, board: BoardType) -> list[dict[str, Any]]:
    """The pins of every slot; lamp and button stand like slots at the end."""
    pins = [
        (slot.id, role, gpio, _leads_to(slot, role))
        for slot in model.slots
        for role, gpio in slot.pins.items()
    ]
    pins += [
        (circuit.interface.id, role.role, gpio, role.leads_to)
        for circuit in panel_circuits(model)
        for role, (_, gpio) in zip(circuit.interface.pins, circuit.pins, strict=True)
    ]
    return [
        {
            "slot": owner,
            "pin": role,
            "gpio": gpio,
            "board": board.pin_name(gpio),
            "leads_to": leads_to,
        }
        for owner, role, gpio, leads_to in pins
    ]


def _leads_to(slot: Slot, role: str) -> str:
    pin = interface_of(slot).pin(role)
    return f"switch of {supply_of(slot).title}" if pin is None else pin.leads_to


def _wire_rows(model: NodeModel) -> list[dict[str, Any]]:
    return [
        {
            "slot": slot.id,
            "wire": wire.colour,
            "signal": wire.signal,
            "clamp": clamp_of(slot, wire),
        }
        for slot in model.slots
        for wire in sensor_type_of(slot).wires
    ]


def _part_row(line: Line, nodes: int) -> dict[str, Any]:
    return {
        "quantity": line.quantity * nodes,
        "manufacturer": line.manufacturer,
        "number": line.number,
        "title": line.title,
        "price_class": line.price_class,
        "used_for": list(line.used_for),
    }


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([*list(row.values())[:-1], "; ".join(row["used_for"])])
    return text.getvalue()


def _rows_as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = [name.replace("_", " ").upper() for name in rows[0]]
    return _table(head, ([str(cell) for cell in row.values()] for row in rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _plain(value: Any) -> Any:
    """Dataclasses, sets and tuples as JSON knows them."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
