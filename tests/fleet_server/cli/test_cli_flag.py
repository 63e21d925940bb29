"""`fleet flag` as it is typed: a person's word, what was said, and why a value has its flag."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON
from judged_world import SPIKE_AT, STEP_S, World
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.models import Datastream, Site

T30 = ("soil_temperature", "--depth", "30")
LATER = NOON + timedelta(days=2)


@pytest.fixture
def world(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[World]:
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{int(LATER.timestamp())}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            made = World(session)
            made.judge()
            yield made
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def _site(world: World) -> str:
    stream = world.session.get_one(Datastream, world.rows()[0].datastream_id)
    code = world.session.get_one(Site, stream.site_id).code
    world.session.rollback()
    return code


def _time(seq: int) -> str:
    return f"{NOON + timedelta(seconds=STEP_S * seq):%Y-%m-%dT%H:%M:%SZ}"


def test_why_tells_the_tests_and_a_person_who_said_otherwise_is_named(
    world: World, fleet: Answering
) -> None:
    site = _site(world)
    status, told, _ = fleet("flag", "why", site, *T30, _time(SPIKE_AT))
    assert status == 0
    assert told.splitlines() == [
        "28.25: bad.",
        "It is 7.97 °C off the line between its neighbours in time (20.3 °C); at most 5 °C is believed.",
        "It rose 8 °C in 15 min; at most 0.75 °C is believed.",
    ]
    span = ("--from", _time(SPIKE_AT), "--to", _time(SPIKE_AT + 2), "--reason", "the sun")
    status, told, _ = fleet("flag", "give", site, *T30, "good", *span, "--json")
    assert status == 0
    assert '"values": 2, "changed": 2' in told
    assert fleet("flag", "why", site, *T30, _time(SPIKE_AT))[1].splitlines()[0] == "28.25: good."
    assert "the sun" in fleet("flag", "list", site, *T30)[1]
    assert fleet("flag", "take-back", site, *T30, *span)[0] == 0
    assert fleet("flag", "why", site, *T30, _time(SPIKE_AT))[1].splitlines()[0] == "28.25: bad."


def test_what_cannot_be_flagged_is_one_sentence(world: World, fleet: Answering) -> None:
    site = _site(world)
    backwards = ("--from", _time(9), "--to", _time(5), "--reason", "why")
    span = ("--from", _time(5), "--to", _time(9), "--reason", "why")
    for arguments, status in [
        (("give", site, "soil_temperature", "bad", *span), 2),
        (("give", site, *T30, "bad", *backwards), 2),
        (("give", site, *T30, "missing", *span), 2),
        (("give", "nowhere", *T30, "bad", *span), 1),
        (("why", site, *T30, "2026-01-01T00:00:00Z"), 1),
        (("why", site, *T30, "noon"), 2),
    ]:
        found, told, complaint = fleet("flag", *arguments)
        assert (found, told) == (status, "")
        assert is_one_sentence(complaint, "")
