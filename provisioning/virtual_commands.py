"""`provision virtual …`: boards made of software that run the real firmware."""

from __future__ import annotations

import _thread
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from hardware.scenes import Scene, SceneError, load_scene
from hardware.virtual_board.bench import measure_boots, measure_memory
from hardware.virtual_board.faults import FAULTS
from hardware.virtual_board.node_folder import EnrolledNode, NodeFolder
from hardware.virtual_board.pacing import FleetClock
from hardware.virtual_board.runner import RunnerError, RunPlan, holding, run_boards
from hardware.virtual_board.runner_worker import Status
from provisioning.bench_nodes import BENCH_SCENE, prepare_bench_nodes
from provisioning.boards import VirtualBoard
from provisioning.enrolment import FleetAddress, check_request, enrol_node
from provisioning.errors import BenchError, UsedWrongly
from provisioning.firmware_bundle import FirmwareBundle, build_bundle
from provisioning.flashing import flash_firmware
from provisioning.node_commands import LAST_UTC_S
from provisioning.signature_bench import measure_signatures

_US_PER_S = 1_000_000
_DAY_S = 86_400
# Real nodes are not switched on in the same second; spread over ten minutes by a step that meets no second twice.
_POWER_ON_STEP_S, _POWER_ON_SPREAD_S = 37, 600
_NODES_PER_PROCESS = 8


class _FiniteRange(click.FloatRange):
    """A number in a range; `nan`, which is in every range and in none, is not one."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a number to reckon with.", param, ctx)
        return number


_UTC_S = click.IntRange(_DAY_S, LAST_UTC_S)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def virtual() -> None:
    """Boards made of software that run the real firmware."""


@virtual.command()
@click.option(
    "--data",
    "data_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the boards, kept between runs: one folder per node.",
)
@click.option("--scene", default="bochum_summer", help="Name of a scene, or a TOML file.")
@click.option(
    "--series",
    "series_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the measured series that the scene names.",
)
@click.option(
    "--nodes", type=click.IntRange(min=1), help="How many nodes; the scene's when not given."
)
@click.option(
    "--start", "start_utc_s", type=_UTC_S, required=True, help="Power-on of the first node."
)
@click.option(
    "--now", "now_utc_s", type=_UTC_S, required=True, help="Up to here as fast as the machine can."
)
@click.option("--speed", type=_FiniteRange(min=0.01), default=60.0, help="Speed after that.")
@click.option("--until-caught-up", is_flag=True, help="End when all is past and has its receipt.")
@click.option("--server", required=True, help="The fleet's node listener: https://HOST:PORT.")
@click.option(
    "--server-ca",
    required=True,
    type=click.Path(path_type=Path),
    help="CA of the fleet's listener.",
)
@click.option("--token", required=True, envvar="PROVISION_TOKEN", help="An enrolment token.")
@click.option("--processes", type=click.IntRange(min=1), help="Worker processes; one per CPU.")
@click.option(
    "--awake-limit",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Boards awake (and so connected) at the same time.",
)
@click.option(
    "--patience",
    "patience_s",
    type=_FiniteRange(min=1),
    default=120.0,
    show_default=True,
    help="With --until-caught-up: give up after this many seconds without progress.",
)
@click.option(
    "--seed", type=int, help="Seed of the scene's chances and the faults; the scene's own."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND:RATE",
    help="Share of the boots with a fault, for example power_cut:0.01. "
    + " ".join(f"{kind}: {text}." for kind, text in FAULTS.items()),
)
@click.option("--json", "as_json", is_flag=True, help="JSON events on stdout, one per line.")
def run(
    *,
    data_dir: Path,
    scene: str,
    series_dir: Path | None,
    nodes: int | None,
    start_utc_s: int,
    now_utc_s: int,
    speed: float,
    until_caught_up: bool,
    server: str,
    server_ca: Path,
    token: str,
    processes: int | None,
    awake_limit: int,
    patience_s: float,
    seed: int | None,
    faults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Flash and enrol the scene's nodes that are missing, then run them all.

    They live from --start to --now as fast as the machine can, after that --speed times as fast as real time, until
    Ctrl-C. Killed at any moment and started again, every board goes on where it was.

    Example: provision virtual run --data boards --nodes 6 --start 1750000000 --now 1750086400
    --server https://127.0.0.1:8443 --server-ca root.crt --token T
    """
    wall_s, started = time.time(), time.monotonic()
    fault_rates = _fault_rates(faults)
    if start_utc_s > now_utc_s:
        raise click.UsageError(
            "--start lies after --now; the nodes live from the one to the other."
        )
    content = open_scene(scene, nodes=nodes, series_dir=series_dir, seed=seed)
    fleet = FleetAddress(server, server_ca)
    for node in content.nodes:
        check_request(fleet, label=node.label)
    status = Status()
    with (
        _speaking(as_json) as speak,
        stopped_by_signals() as stop,
        _runner_errors(),
        holding(data_dir) as lock,
    ):
        machine = machine_version()
        prepare_nodes(
            content,
            data_dir,
            fleet,
            token=token,
            start_utc_s=start_utc_s,
            stop=stop,
            speak=speak,
        )
        plan = RunPlan(
            data_dir=data_dir,
            scene=scene,
            scene_nodes=nodes,
            series_dir=series_dir,
            labels=tuple(node.label for node in content.nodes),
            clock=FleetClock(now_utc_s, wall_s, speed),
            until_caught_up=until_caught_up,
            processes=processes or os.cpu_count() or 1,
            awake_limit=awake_limit,
            patience_s=patience_s,
            scene_seed=seed,
            series_end_utc_s=kept_series_end(data_dir, now_utc_s),
            fault_seed=seed or 1,
            fault_rates=fault_rates,
        )
        if not stop.is_set():
            status = run_boards(
                plan, lock, report=lambda s: speak(_progress(s, machine)), stop=stop
            )
        seconds = round(time.monotonic() - started, 3)
        speak({**_progress(status, machine), "event": "done", "seconds": seconds})


@virtual.command()
@click.option("--seconds", type=_FiniteRange(min=0.5), default=20.0, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), help="Worker processes; one per CPU.")
@click.option(
    "--nodes",
    type=click.IntRange(min=10),
    default=200,
    show_default=True,
    help="Idle nodes to measure the memory of.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on one line of stdout.")
def bench(seconds: float, processes: int | None, nodes: int, as_json: bool) -> None:
    """Measure boots per second, beside bare starts of the virtual machine, memory per node, and signatures.

    The nodes sample every 15 minutes and look for a broker every hour, which is not there.

    Example: provision virtual bench --seconds 10 --json
    """
    processes = processes or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="stadtsensor-bench-") as scratch:
        labels = prepare_bench_nodes(Path(scratch), count=nodes)
        rates = measure_boots(
            Path(scratch),
            BENCH_SCENE,
            labels[: processes * _NODES_PER_PROCESS],
            seconds=seconds,
            processes=processes,
        )
        memory = measure_memory(Path(scratch), BENCH_SCENE, labels)
    figures = {
        "boots_per_second": round(rates.boots_per_second, 1),
        "limit_boots_per_second": round(rates.limit_boots_per_second, 1),
        "boots": rates.boots,
        "cpu_ms_per_boot": round(rates.cpu_ms_per_boot, 1),
        "processes": processes,
        "nodes": memory.nodes,
        "rss_kb_per_node": round(memory.bytes_per_node / 1000, 1),
        "rss_mb_per_1000_nodes": round(memory.rss_mb_per_1000_nodes(processes), 1),
        **measure_signatures(),
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, figure in figures.items():
        click.echo(f"{name:28} {figure}")


def open_scene(
    scene: str, *, nodes: int | None, series_dir: Path | None, seed: int | None
) -> Scene:
    """The scene's sites and nodes. Raises UsedWrongly with the scene's own sentence."""
    try:
        return load_scene(scene, nodes=nodes, series_dir=series_dir, seed=seed)
    except SceneError as error:
        raise UsedWrongly(str(error)) from error


def machine_version() -> str:
    """What the boards run on, in the machine's own words. The first call on a computer makes the machine ready."""
    with tempfile.TemporaryDirectory(prefix="stadtsensor-board-") as scratch:
        said = VirtualBoard(Path(scratch)).exec("import sys\nprint(sys.version)")
    return said.strip()


def kept_series_end(data_dir: Path, now_utc_s: int) -> int:
    """The moment at which measured series end: the first run's now, so that the past stays what it was."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "series_end_utc_s"
    if not path.exists():
        path.write_text(f"{now_utc_s}\n", encoding="ascii")
    return int(path.read_text(encoding="ascii"))


def prepare_nodes(
    scene: Scene,
    data_dir: Path,
    fleet: FleetAddress,
    *,
    token: str,
    start_utc_s: int,
    stop: threading.Event,
    speak: Callable[[dict[str, Any]], None],
) -> None:
    """Flash and enrol the nodes that have no folder yet, or whose enrolment was interrupted."""
    bundle: FirmwareBundle | None = None
    for number, node in enumerate(scene.nodes):
        folder = NodeFolder(data_dir / node.label)
        if stop.is_set() or folder.node() is not None:
            continue
        # The clock's floor lies before anything that the nodes live through.
        bundle = bundle or build_bundle(built_at_utc_s=start_utc_s - _DAY_S)
        power_on_s = start_utc_s + number * _POWER_ON_STEP_S % _POWER_ON_SPREAD_S
        board = VirtualBoard(folder.path, start_utc_us=power_on_s * _US_PER_S)
        flash_firmware(board, bundle)
        enrolment = enrol_node(
            board,
            fleet,
            label=node.label,
            model_id=node.model,
            token=token,
            wifi=board.known_wifi,
            has_panel=False,  # nobody stands before it
        )
        folder.save(EnrolledNode(node.label, node.model, enrolment.node_id))
        speak({"event": "enrolled", "label": node.label, "node_id": enrolment.node_id})


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, however often they come, instead of ending in the middle of something."""
    stop = threading.Event()

    def tell(*_: object) -> None:
        # In a thread of its own: a handler runs in the middle of the main thread, perhaps of `stop.wait` or of the handler
        # before it, and `stop.set` would then wait for ever for a lock that the main thread itself holds.
        _thread.start_new_thread(stop.set, ())

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress(status: Status, machine: str) -> dict[str, Any]:
    return {
        "event": "progress",
        "boots": status.boots,
        "packs_written": status.packs_written,
        "packs_held": status.packs_held,
        "nodes": status.nodes,
        "caught_up": status.caught_up,
        "power_cuts": status.power_cuts,
        "sim_utc_s_min": int(status.sim_utc_s_min),
        "sim_utc_s_max": int(status.sim_utc_s_max),
        "vm": machine,
    }


@contextmanager
def _speaking(as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Events as JSON lines on stdout, or in words on stderr: one line that changes on a terminal, else one each."""
    if as_json:
        yield lambda event: click.echo(json.dumps(event))
    elif not sys.stderr.isatty():
        yield lambda event: click.echo(_in_words(event), err=True)
    else:
        with Console(stderr=True).status("Making the boards ready …") as line:
            yield lambda event: line.update(_in_words(event))
            # What stands there at the end stays.
            line.console.print(line.status)


def _in_words(event: dict[str, Any]) -> str:
    if event["event"] == "enrolled":
        return f"{event['label']} is enrolled as {event['node_id']}."
    return (
        f"{event['caught_up']} of {event['nodes']} nodes caught up, {event['boots']} boots, "
        f"{event['packs_written']} packs written, {event['packs_held']} without receipt"
    )


def _fault_rates(faults: tuple[str, ...]) -> dict[str, float]:
    """Rates by kind of fault. Raises click.BadParameter for a kind or rate that is none."""
    rates = {}
    for fault in faults:
        name, _, rate = fault.partition(":")
        try:
            rates[name] = float(rate)
        except ValueError:
            raise click.BadParameter(f"{fault} is not KIND:RATE.", param_hint="--fault") from None
        if name not in FAULTS or not 0 <= rates[name] <= 1:
            raise click.BadParameter(
                f"{fault}: KIND is one of {', '.join(FAULTS)}, RATE from 0 to 1.",
                param_hint="--fault",
            )
    return rates


@contextmanager
def _runner_errors() -> Iterator[None]:
    try:
        yield
    except RunnerError as error:
        raise BenchError(str(error)) from error
