"""`provision virtual serve`: one virtual board on a cable, for the tools that work on real ones."""

from __future__ import annotations

import errno
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hardware.scenes import SceneError
from hardware.virtual_board.board import Board
from hardware.virtual_board.cable.chips import CHIPS, ESP32
from hardware.virtual_board.cable.serving import Serving
from hardware.virtual_board.node_folder import NodeFolder
from hardware.virtual_board.scene_wiring import wire_board
from hardware.virtual_board.wiring import Wiring
from provisioning.errors import BenchError, UsedWrongly
from provisioning.virtual_commands import open_scene, stopped_by_signals

_US_PER_NS = 1000
_LOOK_EVERY_S = 0.2
_FIRST_NODE = "tree-01"
_PORT = click.IntRange(0, 65535)


@click.command()
@click.option(
    "--board",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The board's folder, made when it is not there; without it a new board that is gone at the end.",
)
@click.option(
    "--chip",
    "chip_name",
    type=click.Choice(sorted(CHIPS)),
    default=ESP32.option,
    show_default=True,
    help="Others than the ESP32 say what they are, and no more.",
)
@click.option(
    "--scene",
    default="bochum_summer",
    show_default=True,
    help="What surrounds it: a scene's name, or a TOML file.",
)
@click.option(
    "--node",
    "label",
    help=f"Whose probes of the scene it has; the folder's own node, else {_FIRST_NODE}.",
)
@click.option("--port", type=_PORT, default=0, help="TCP port for RFC 2217; 0: any free one.")
@click.option("--tcp-port", type=_PORT, default=0, help="TCP port for bare bytes; 0: any free one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on one line of stdout.")
def serve(
    *,
    folder: Path | None,
    chip_name: str,
    scene: str,
    label: str | None,
    port: int,
    tcp_port: int,
    as_json: bool,
) -> None:
    """Put a virtual board on a cable until Ctrl-C, in real time.

    esptool and mpremote work on it as on a real one: at the address of RFC 2217 with its reset lines, at the others
    without them. One client at a time. The new board has MicroPython, an empty file system and no identity.

    Example: provision virtual serve --board bench/tree-01
    """
    if port and port == tcp_port:
        raise click.BadParameter("The two doors need a port each.", param_hint="--tcp-port")
    with stopped_by_signals() as stop, _folder(folder) as path:
        wiring = _wiring(scene, label or _label_of(path))
        board = Board(path, wiring, start_utc_us=time.time_ns() // _US_PER_NS)
        try:
            serving = Serving(board, CHIPS[chip_name], port=port, tcp_port=tcp_port)
        except OSError as error:
            raise _as_sentence(error, path, (port, tcp_port)) from error
        with serving:
            _say_ready(serving, as_json=as_json)
            _wait(serving, stop, path)


def _wait(serving: Serving, stop: threading.Event, path: Path) -> None:
    while not stop.is_set():
        try:
            serving.wait(_LOOK_EVERY_S)
        except OSError as error:
            raise BenchError(f"The board in {path} cannot go on: {error.strerror}.") from error


def _say_ready(serving: Serving, *, as_json: bool) -> None:
    doors = serving.doors
    if as_json:
        ready = {
            "event": "ready",
            "url": doors.rfc2217_url,
            "tcp": doors.tcp_url,
            "pty": doors.pty_path,
        }
        click.echo(json.dumps(ready))
        return
    click.echo(f"With reset lines:  {doors.rfc2217_url}")
    click.echo(f"Without, faster:   {doors.tcp_url}  {doors.pty_path}")


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="stadtsensor-board-") as scratch:
        yield Path(scratch) / "board"


def _label_of(path: Path) -> str:
    node = NodeFolder(path).node()
    return _FIRST_NODE if node is None else node.label


def _wiring(scene: str, label: str) -> Wiring:
    content = open_scene(scene, nodes=None, series_dir=None, seed=None)
    try:
        return wire_board(content, label, now_utc_s=int(time.time()))
    except SceneError as error:
        raise UsedWrongly(str(error)) from error


def _as_sentence(error: OSError, path: Path, ports: tuple[int, int]) -> BenchError:
    if error.errno == errno.EADDRINUSE:
        taken = " or ".join(str(port) for port in sorted({*ports} - {0}))
        return BenchError(f"Port {taken} is in use by another program; leave it out to take any.")
    return BenchError(f"The board in {path} cannot be used: {error.strerror}.")
