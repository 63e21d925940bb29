"""Many wakes with much bad luck: what counts at the end is that everything kept was stored, once."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import nodes
import pytest
from scripted_broker import ScriptedBroker

from hardware.virtual_board.board import Board
from hardware.virtual_board.flash import PowerCutPlan
from hardware.virtual_board.ledger import SpoolLedger, spool_on_flash
from hardware.virtual_board.network import NetworkPolicy

S = 1_000_000
FAULTS = [
    NetworkPolicy(),
    NetworkPolicy(),
    NetworkPolicy(),
    NetworkPolicy(wifi="absent"),
    NetworkPolicy(tcp="refused"),
    NetworkPolicy(ntp="silent"),
    NetworkPolicy(ntp="wrong", ntp_error_s=-40 * 365 * 86_400),
    NetworkPolicy(dns=False),
]


def _unlucky_life(board: Board, *, wakes: int, seed: int) -> tuple[SpoolLedger, int]:
    """`wakes` wakes, half of them with a cut of the power somewhere; the ledger, and how many cuts there were."""
    dice = random.Random(seed)
    ledger = SpoolLedger(board.folder / "ledger.json")
    cuts = 0
    for _ in range(wakes):
        board.network_policy = replace(dice.choice(FAULTS))
        if dice.random() < 0.5:
            operation = dice.randint(1, 16)
            board.power_cut = PowerCutPlan(at_operation=operation, torn=dice.random() < 0.5)
        result = board.run_wake()
        with spool_on_flash(board.flash_path) as files:
            ledger.observe(files)
        if result.reason == "power_cut":
            cuts += 1
            board.power_on(at_utc_us=board.now_us + dice.randint(1, 4000) * S)
        else:
            assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
    board.network_policy = NetworkPolicy()
    board.power_cut = None
    for _ in range(9):
        assert board.run_wake().reason == "deepsleep"
    board.power_on(at_utc_us=board.now_us + S)
    board.run_wake()
    with spool_on_flash(board.flash_path) as files:
        ledger.observe(files)
    return ledger, cuts


def _assert_everything_kept_was_stored_once(broker: ScriptedBroker, ledger: SpoolLedger) -> None:
    stored: dict[tuple[int, int], object] = {}
    for pack in broker.packs():
        identity = (int(pack[1][2]), int(pack[2][2]))  # type: ignore[call-overload]
        assert stored.setdefault(identity, pack[1:]) == pack[1:], "one identity, two bodies"
    written = {
        (spool, seq)
        for spool, ranges in ledger.written().items()
        for first, last in ranges
        for seq in range(first, last + 1)
    }
    assert set(stored) == written
    assert ledger.packs_held == 0


def _live(folder: Path, broker: ScriptedBroker, *, wakes: int, seed: int) -> None:
    board = nodes.make_board(folder / "node", nodes.soil(), node=nodes.tree_3(), port=broker.port)

    ledger, cuts = _unlucky_life(board, wakes=wakes, seed=seed)

    assert cuts > wakes // 8
    assert ledger.packs_written > wakes // 2
    _assert_everything_kept_was_stored_once(broker, ledger)


def test_random_power_cuts_and_networks_lose_and_double_nothing(
    tmp_path: Path, broker: ScriptedBroker, faster_waits: None
) -> None:
    _live(tmp_path, broker, wakes=60, seed=1)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(10))
def test_thousands_of_power_cuts_lose_and_double_nothing(
    tmp_path: Path, broker: ScriptedBroker, faster_waits: None, seed: int
) -> None:
    _live(tmp_path, broker, wakes=2_000, seed=seed)


@pytest.mark.nightly
@pytest.mark.parametrize("sent_bytes", [0, 40, 110, 600])
def test_the_radio_is_on_for_thirty_seconds_at_most(
    tmp_path: Path, broker: ScriptedBroker, sent_bytes: int
) -> None:
    """At wall speed, where `faster_waits` would blur the limit."""
    board = nodes.make_board(
        tmp_path / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        network_policy=NetworkPolicy(drop_after_sent=sent_bytes),
    )

    result = board.run_wake()

    assert result.reason == "deepsleep"
    assert result.awake_us < 32 * S
