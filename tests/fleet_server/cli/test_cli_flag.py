"""`fleet flag` as it is typed: a person's word, what was said, and why a value has its flag."""

from __future__ import annotations

import json
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
from fleet_server.models import Datastream, Observation, Site

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


def test_limits_are_shown_set_from_a_file_and_judged_by(
    world: World, fleet: Answering, tmp_path: Path
) -> None:
    site = _site(world)
    status, told, _ = fleet("rules", "show", "soil_temperature", "--site", site, "--depth", "30")
    assert status == 0
    limits = json.loads(told) | {"spike": {"suspect": 20, "fail": 40}, "rate": None}
    file = tmp_path / "limits.json"
    file.write_text(json.dumps(limits), encoding="utf-8")
    series = ("--site", site, "--depth", "30")
    status, told, _ = fleet("rules", "set", "soil_temperature", str(file), *series, "--dry-run")
    assert status == 0
    assert told.splitlines() == [
        "With these limits 3 of 48 values of the last year would have another flag.",
        f"2: suspect → good, first at {_time(SPIKE_AT - 1)} (20.25)",
        f"1: bad → good, first at {_time(SPIKE_AT)} (28.25)",
    ]
    assert fleet("rules", "history", "soil_temperature", *series)[1] == "Nobody ever set any.\n"
    options = (*series, "--reason", "a sunny spot")
    status, told, _ = fleet("rules", "set", "soil_temperature", str(file), *options)
    assert (status, told) == (0, "Version 1 is in force; the worker judges the values again.\n")
    assert "told with --site" in fleet("rules", "history", "soil_temperature")[1]
    world.judge(now=LATER + timedelta(days=1))
    assert {row.flag for row in world.rows()} == {1}
    status, told, _ = fleet(
        "rules", "show", "soil_temperature", "--site", site, "--depth", "30", "--json"
    )
    assert json.loads(told)["version"] == 1
    assert json.loads(fleet("rules", "show", "soil_temperature", "--json")[1])["version"] == 0
    history = fleet("rules", "history", "soil_temperature", *series)[1].splitlines()
    assert history[0].endswith(": a sunny spot")
    assert "   spike.suspect: 2.0 → 20.0" in history
    status, _, _ = fleet("rules", "set", "soil_temperature", str(file), "--reason", "a sunny city")
    assert status == 0
    of_all = fleet("rules", "history", "soil_temperature")[1].splitlines()
    assert of_all[0].endswith(": a sunny city"), "those of all series have a past, too"
    assert "   spike.suspect: 2.0 → 20.0" in of_all


def test_limits_that_are_none_are_one_sentence(
    world: World, fleet: Answering, tmp_path: Path
) -> None:
    site = _site(world)
    for content, sentence, status in [
        ("{", "is no JSON", 2),
        ("[1]", "holds no limits", 2),
        ('{"gross": 1}', "rules.gross must be an object", 2),
    ]:
        file = tmp_path / "limits.json"
        file.write_text(content, encoding="utf-8")
        found, told, complaint = fleet("rules", "set", "ph", str(file), "--reason", "why")
        assert (found, told) == (status, "")
        assert is_one_sentence(complaint, sentence)
    file.write_text("null", encoding="utf-8")
    status, told, complaint = fleet("rules", "set", "ph", str(file))
    assert (status, told) == (2, "")
    assert "Say why with --reason, or try it with --dry-run." in complaint
    for arguments, sentence in [
        (("show", "wind"), "Values of wind are not judged"),
        (("learn", site, *T30), "learned from its first 30 good days"),
    ]:
        found, told, complaint = fleet("rules", *arguments)
        assert (found, told) == (1, "")
        assert is_one_sentence(complaint, sentence)


def test_series_learns_from_its_first_thirty_days(world: World, fleet: Answering) -> None:
    """A thermometer in a sunny wall: it jumps by 4 °C every six hours, and people found that right."""
    site = _site(world)
    row = world.rows()[0]
    with db.writing(world.session):
        pack_id, lineage_id = row.pack_id, row.lineage_id
        world.session.add_all(
            Observation(
                datastream_id=row.datastream_id,
                sampled_at=NOON - timedelta(hours=hours),
                value=20.0 + 4.0 * (hours // 6 % 2),
                u=0.3,
                flag=1,
                tests=1,
                lineage_id=lineage_id,
                known_from=LATER,
                pack_id=pack_id,
            )
            for hours in range(1, 40 * 24)
        )
    status, told, _ = fleet("rules", "learn", site, *T30, "--dry-run", "--json")
    assert status == 0
    assert json.loads(told)["limits"]["rate"]["rise_per_h"] == pytest.approx(4.0)
    assert json.loads(told)["limits"]["spike"]["suspect"] == 2.0
    assert fleet("rules", "learn", site, *T30)[0] == 0
    shown = fleet("rules", "show", "soil_temperature", "--site", site, "--depth", "30", "--json")
    assert json.loads(shown[1])["version"] == 1
