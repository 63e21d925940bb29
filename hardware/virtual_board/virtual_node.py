"""One node as the runner sees it: a board with the scene's probes, its ledger, and its way through a boot."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hardware.catalogue import load_node_model
from hardware.scenes import load_scene
from hardware.virtual_board.board import Board, WakeResult
from hardware.virtual_board.faults import Misfortune
from hardware.virtual_board.ledger import SpoolLedger, spool_on_flash
from hardware.virtual_board.node_folder import NodeFolder
from hardware.virtual_board.pacing import FleetClock, Standing, is_caught_up
from hardware.virtual_board.runner_worker import Orders, WakeFailed
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.scene_wiring import wire_board
from hardware.virtual_board.wiring import Wiring

_US_PER_S = 1_000_000
# Somebody notices a node that stands still (no watchdog, no sleep) and presses reset.
_RESET_PRESSED_AFTER_S = 3600
# A supply that failed comes back this much later.
_POWER_BACK_AFTER_S = 60
_LAST_WORDS_LINES = 12


class VirtualNode:
    """Between boots this holds no virtual machine and no open file."""

    def __init__(
        self,
        folder: NodeFolder,
        wiring: Wiring,
        *,
        clock: FleetClock,
        seed: int = 1,
        fault_rates: Mapping[str, float] | None = None,
    ) -> None:
        """Opens an enrolled node's folder and counts what is on its flash.

        Raises:
            WakeFailed: the folder holds no enrolled node.
        """
        node = folder.node()
        if node is None:
            raise WakeFailed(f"{folder.path} holds no enrolled node")
        self.label = node.label
        self.power_cuts = 0
        self.failures_in_a_row = 0
        self.has_caught_up = False
        self._folder = folder
        self._board = Board(folder.path, wiring)
        self._publish_every_s = load_node_model(node.model).publish_every_s
        self._clock = clock
        self._misfortune = Misfortune(fault_rates or {}, f"{seed}/{node.label}/{self._board.boots}")
        self._slept_in_wall_s = self._asked_in_wall_s = 0.0
        self._ledger = SpoolLedger(folder.ledger_path)
        self._count()

    @property
    def wakes_at_us(self) -> int:
        """True simulated UTC of the next boot."""
        return self._board.now_us

    @property
    def boots(self) -> int:
        return self._board.boots

    @property
    def packs_written(self) -> int:
        return self._ledger.packs_written

    def standing(self) -> Standing:
        """Where it stands, for the pacing."""
        return Standing(
            wakes_at_s=self._board.now_us / _US_PER_S,
            packs_held=self._ledger.packs_held,
            publish_every_s=self._publish_every_s,
            slept_in_wall_s=self._slept_in_wall_s,
            asked_in_wall_s=self._asked_in_wall_s,
        )

    def wake(self) -> None:
        """One boot, until the node sleeps; then its flash is counted.

        Raises:
            WakeFailed: the board's files cannot be used.
        """
        self._board.power_cut = self._misfortune.power_cut()
        self._board.network_policy = self._misfortune.network_policy()
        try:
            result = self._board.run_wake()
            self._count()
        except OSError as error:
            self.failures_in_a_row += 1
            raise WakeFailed(f"{self._folder.path}: {error}") from error
        self.failures_in_a_row = 0
        self._slept_in_wall_s = time.time()
        if result.connections:
            self._asked_in_wall_s = self._slept_in_wall_s
        self._see_to(result)

    def _count(self) -> None:
        with spool_on_flash(self._folder.flash_path) as spool:
            self._ledger.observe(spool)
        self._ledger.save()
        self.has_caught_up = self.has_caught_up or is_caught_up(self.standing(), self._clock)

    def _see_to(self, result: WakeResult) -> None:
        """What people and the supply do when a boot did not end in sleep."""
        if result.reason in ("power_cut", "brownout"):
            self.power_cuts += 1
            self._board.power_on(at_utc_us=result.ended_us + _POWER_BACK_AFTER_S * _US_PER_S)
        elif result.wake_us is None or result.reason == "crash":
            self._board.press_reset(at_utc_us=result.ended_us + _RESET_PRESSED_AFTER_S * _US_PER_S)
        if result.error and result.reason not in ("power_cut", "brownout"):
            last_words = "\n    ".join(result.stdout.strip().splitlines()[-_LAST_WORDS_LINES:])
            print(  # noqa: T201 - a worker's stderr is its log
                f"{self.label} at {result.ended_us // _US_PER_S}: {result.reason}: {result.error}\n"
                f"    {last_words}",
                file=sys.stderr,
                flush=True,
            )


def open_nodes(orders: Orders) -> list[VirtualNode]:
    """The nodes of one worker, wired to the scene.

    Raises:
        SceneError: the scene cannot be used.
        WakeFailed: a node's folder cannot be used.
    """
    scene = load_scene(
        orders.scene,
        nodes=orders.scene_nodes,
        series_dir=None if orders.series_dir is None else Path(orders.series_dir),
        seed=orders.scene_seed,
    )
    truth = Truth(scene, now_utc_s=orders.series_end_utc_s)
    return [
        VirtualNode(
            NodeFolder(Path(orders.data_dir) / label),
            wire_board(truth, label),
            clock=orders.clock,
            seed=orders.fault_seed,
            fault_rates=orders.fault_rates,
        )
        for label in orders.labels
    ]
