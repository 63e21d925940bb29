"""Boards as data (`boards/*.toml`): which pins there are and what each can do, and what the board draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hardware import data_files
from hardware.data_files import CatalogueError
from hardware.parts import Part, read_parts
from hardware.strict_toml import StrictTable


@dataclass(frozen=True)
class Pins:
    """GPIO numbers by what they are. A number may stand in several sets; only `exposed` ones can be soldered to.

    `start_high`, `start_low`: those of the `strapping` pins with which the chip starts what is in its flash while they are
    held there. `wakes`: those that can end deep sleep.
    """

    exposed: frozenset[int]
    input_only: frozenset[int]
    strapping: frozenset[int]
    start_high: frozenset[int]
    start_low: frozenset[int]
    flash: frozenset[int]
    console: frozenset[int]
    on_board: frozenset[int]
    adc1: frozenset[int]
    adc2: frozenset[int]
    wakes: frozenset[int]

    @property
    def free(self) -> tuple[int, ...]:
        """Those with no other duty, sorted."""
        taken = self.strapping | self.flash | self.console | self.on_board
        return tuple(sorted(self.exposed - taken))


@dataclass(frozen=True)
class BatteryDivider:
    """What brings the battery's voltage to ADC1, at `pin` unless a model needs that pin otherwise.

    `divider_milli`: battery voltage / pin voltage, in thousandths, as the resistors among `parts` make it.
    """

    pin: int
    divider_milli: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class BoardCurrents:
    """What the board draws from its supply: asleep, starting, working without radio, joining Wi-Fi, talking."""

    asleep_ua: float
    boot_ma: float
    awake_ma: float
    join_ma: float
    talk_ma: float


@dataclass(frozen=True)
class BoardTimes:
    """How long the parts of a wake take that are the chip's own and not the probes'."""

    boot_ms: int
    load_ms: int
    join_ms: int
    talk_ms: int


@dataclass(frozen=True)
class BoardType:
    """A board that a node can be built on. `labels`: what is printed beside a pin, where it is not its number."""

    id: str
    title: str
    manufacturer: str
    chip: str
    flash_mb: int
    uarts: tuple[int, ...]
    pins: Pins
    labels: Mapping[int, str]
    battery: BatteryDivider
    currents: BoardCurrents
    times: BoardTimes
    parts: tuple[Part, ...]
    note: str
    source: str
    assumed: tuple[str, ...]

    def pin_name(self, gpio: int) -> str:
        """As a person finds it on the board: `GPIO25 (D2)`."""
        label = self.labels.get(gpio)
        return f"GPIO{gpio} ({label})" if label else f"GPIO{gpio}"


def board_ids() -> tuple[str, ...]:
    """Every board that we have data for, sorted."""
    return data_files.ids("boards")


def load_board(board_id: str) -> BoardType:
    """The board of this id. Raises CatalogueError when unknown or wrongly written."""
    return _load(board_id, data_files.folders())


def parse_board(text: str, *, name: str) -> BoardType:
    """A board from TOML text; `name` is what an error calls the file."""
    table = StrictTable.from_toml(text, name, CatalogueError)
    board = BoardType(
        id=table.text("id"),
        title=table.text("title"),
        manufacturer=table.text("manufacturer"),
        chip=table.text("chip"),
        flash_mb=table.count("flash_mb", at_least=1),
        uarts=table.wholes("uarts"),
        pins=table.one("pins", _pins),
        labels=_labels(table),
        battery=table.one("battery", _battery),
        currents=table.one("current", _currents),
        times=table.one("time", _times),
        parts=read_parts(table, at_least=1),
        note=table.text("note", ""),
        source=table.text("source"),
        assumed=table.paths("assumed"),
    )
    table.finish()
    _check(board, name)
    return board


@cache
def _load(board_id: str, among: tuple[Path, ...]) -> BoardType:
    text, name = data_files.read("boards", board_id, among)
    board = parse_board(text, name=name)
    data_files.check_id(board.id, board_id, name)
    return board


def _check(board: BoardType, name: str) -> None:
    if board.battery.pin not in board.pins.adc1:
        raise CatalogueError(f"{name}: battery.pin {board.battery.pin} is not on ADC1.")
    for gpio in sorted((board.pins.start_high | board.pins.start_low) - board.pins.strapping):
        raise CatalogueError(
            f"{name}: pins.start_high or start_low names GPIO{gpio}, which is no strapping pin."
        )
    for gpio in board.labels:
        if gpio not in board.pins.exposed:
            raise CatalogueError(f"{name}: labels names GPIO{gpio}, which is not exposed.")


def _pins(table: StrictTable) -> Pins:
    return Pins(**{kind: frozenset(table.wholes(kind)) for kind in Pins.__dataclass_fields__})


def _labels(table: StrictTable) -> dict[int, str]:
    labels = table.mapping("labels", str, "a text")
    wrong = next((key for key in labels if not key.isdecimal()), None)
    if wrong is not None:
        raise CatalogueError(f"{table.where}: labels.{wrong} is not the number of a GPIO.")
    return {int(key): label for key, label in labels.items()}


def _battery(table: StrictTable) -> BatteryDivider:
    return BatteryDivider(
        pin=table.whole("pin"),
        divider_milli=table.count("divider_milli", at_least=1),
        parts=read_parts(table, at_least=1),
    )


def _currents(table: StrictTable) -> BoardCurrents:
    return BoardCurrents(
        **{name: table.amount(name) for name in BoardCurrents.__dataclass_fields__}
    )


def _times(table: StrictTable) -> BoardTimes:
    return BoardTimes(**{name: table.count(name) for name in BoardTimes.__dataclass_fields__})
