"""`fleet campaign` as it is typed, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, register_node
from sqlalchemy.orm import Session
from typed_commands import Answering, answering

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import campaign_steps, campaigning
from tests.fleet_server.services.campaign_fleet import Talker, act_as, add_release


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    """tree-01 to tree-03, heard, and a release."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_CLOCK", f"{NOON_S}@0x0")
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.chdir(tmp_path)
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            for number in (1, 2, 3):
                node_id = register_node(opened, f"n-{number:06x}", label=f"tree-0{number}")
                Talker(opened, node_id).say(NOON)
            add_release(opened)
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def test_campaign_is_planned_handed_in_approved_by_another_and_asked_about(
    session: Session, fleet: Answering
) -> None:
    typed = ("campaign", "create", "tree-3", "0.8.0", "--canaries", "1", "--waves", "100")
    assert fleet("campaign", "list").out == "There was no campaign yet.\n"
    assert fleet("campaign", "why", "tree-01").out == (
        "No campaign is for it: it runs 0.7.0, and release 0.8.0 is there.\n"
    )
    dry = fleet(*typed, "--dry-run")
    assert "3 nodes update to 0.8.0, 0 of them were not heard of late" in dry.out
    assert "Nodes in each wave: 1, 2." in dry.out
    made = fleet(*typed, "--node", "tree-01", "--node", "tree-02")
    assert made.out == (
        "Campaign 1 to 0.8.0 (tree-3) is draft, wave 0 of 2: 2 nodes, 0 reached, 0 succeeded, 0 failed.\n"
    )
    assert fleet("campaign", "start", "1").status == 0
    own = fleet("campaign", "approve", "1")
    assert (own.status, "somebody else has to approve it" in own.err) == (1, True)
    act_as(session, "bert")
    campaigning.approve_campaign(session, 1, now=NOON)
    campaign_steps.advance_all(session, now=NOON)
    shown = json.loads(fleet("campaign", "show", "1", "--json").out)
    assert shown["stages"] == {"offered": 1, "planned": 1}
    waiting = next(one["label"] for one in shown["nodes"] if one["stage"] == "planned")
    assert fleet("campaign", "why", waiting, "--language", "de").out == (
        "Er ist in Welle 2 der Kampagne 1 auf 0.8.0; offen ist Welle 1.\n"
    )
    assert "is paused (storm)" in fleet("campaign", "pause", "1", "--reason", "storm").out
    alone = fleet("campaign", "resume", "1", "--try-again")
    assert (alone.status, "is decided by somebody else" in alone.err) == (1, True)
    assert "is running, wave 1" in fleet("campaign", "resume", "1").out
    own = fleet("campaign", "retry", "1", "tree-01")
    assert (own.status, "somebody else lets a node try again" in own.err) == (1, True)
    assert "is aborted" in fleet("campaign", "abort", "1").out
    again = fleet("campaign", "abort", "1")
    assert (again.status, again.err) == (
        1,
        "fleet: Campaign 1 is aborted; this cannot be done now.\n",
    )


@pytest.mark.parametrize(
    ("typed", "status", "sentence"),
    [
        (("create", "tree-3", "9.9.9"), 1, "There is no release 9.9.9 for tree-3."),
        (("create", "tree-3", "0.8.0", "--waves", "50"), 2, "end with all nodes"),
        (("create", "tree-3", "0.8.0", "--hours", "night"), 2, "Write hours like"),
        (("create", "tree-3", "0.8.0", "--node", "oak"), 1, "There is no node oak"),
        (("create", "tree-3", "0.8.0", "--time-out", "lunch=1"), 2, "STAGE=HOURS"),
        (("create", "tree-3", "0.8.0", "--time-out", "testing=inf"), 2, "STAGE=HOURS"),
        (("show", "7"), 1, "There is no campaign 7."),
        (("why", "oak"), 1, "There is no node oak"),
    ],
)
def test_wrong_use_ends_in_one_sentence(
    session: Session, fleet: Answering, typed: tuple[str, ...], status: int, sentence: str
) -> None:
    answer = fleet("campaign", *typed)
    assert (answer.status, sentence in answer.err) == (status, True), answer.err
    assert campaigning.campaign_page(session, limit=9).items == []
