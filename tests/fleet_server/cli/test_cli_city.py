"""`fleet city` as it is typed: states with their reasons, rules as files, and a dry run of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from city_world import DRY, SOUND, WET, City
from databases import SqliteDatabases
from factories import NOON
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main


@pytest.fixture
def city(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[City]:
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{int(NOON.timestamp())}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            made = City(session)
            made.measure(made.add_site("linde", planted_year=2000, tree_group="Ring"), DRY)
            made.measure(made.add_site("teich", "pond-1"), SOUND, count=3)
            made.look()
            yield made
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def written(tmp_path: Path, body: object) -> str:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(body))
    return str(path)


def test_states_are_told_to_people_and_programs(fleet: Answering, city: City) -> None:
    told = fleet("city", "states")
    assert told.out.splitlines()[0].startswith("critical   linde  Site linde  since 2026-07-01")
    assert "above 80 kPa." in told.out
    found = json.loads(fleet("city", "states", "waters", "--json").out)["states"]
    assert [(one["site"], one["state"], one["rule_set_id"]) for one in found] == [
        ("teich", "good", None)
    ]
    (linde,) = json.loads(fleet("city", "states", "--site", "linde", "--json").out)["states"]
    assert linde["reasons"][0]["numbers"]["limit"] == 80.0
    assert fleet("city", "states", "--state", "moderate").out == "There is no such site.\n"


def test_rules_are_shown_rehearsed_set_and_taken_back(
    fleet: Answering, city: City, tmp_path: Path
) -> None:
    shown = json.loads(fleet("city", "rules", "show", "trees").out)
    assert shown["tension"][-1]["critical_kpa"] == 80.0
    shown["tension"] = [{"moderate_kpa": 100, "critical_kpa": 150}]
    file = written(tmp_path, shown)
    told = fleet("city", "rules", "dry-run", "trees", file, "--days", "2", "--json")
    tried = json.loads(told.out)
    assert (tried["sites"], tried["before"], tried["after"]) == (
        1, {"unknown": {"sites": 1, "days": 2.0}}, {"unknown": {"sites": 1, "days": 2.0}},
    )  # fmt: skip
    group = ("--group", "Ring", "--reason", "sand")
    assert "Version 1 is in force" in fleet("city", "rules", "set", "trees", file, *group).out
    in_force = json.loads(fleet("city", "rules", "show", "trees", "--site", "linde", "--json").out)
    assert (in_force["version"], in_force["rules"]["tension"][0]["critical_kpa"]) == (1, 150.0)
    null = written(tmp_path, None)
    assert "Version 2 is in force" in fleet("city", "rules", "set", "trees", null, *group).out
    assert json.loads(fleet("city", "rules", "show", "trees", "--site", "linde", "--json").out)["version"] == 0  # fmt: skip


def test_a_dry_run_says_how_many_more_sites_in_words(
    fleet: Answering, city: City, tmp_path: Path
) -> None:
    site = city.add_site("eiche", planted_year=2000)
    city.measure(site, WET, at=NOON - timedelta(hours=9))
    file = written(tmp_path, {"tension": [{"moderate_kpa": 5, "critical_kpa": 9}]})
    told = fleet("city", "rules", "dry-run", "trees", file, "--days", "1").out.splitlines()
    assert told[0] == "The last 1 days at 2 sites, by the rules in force and by these:"
    assert told[1] == "  critical   sites 0 → 1 (+1), site-days 0 → 1"
    assert told[-1] == "Otherwise than now on most days: eiche (1)"


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("city", "states", "--site", "nowhere"), 1, "There is no site nowhere"),
        (("city", "states", "bushes"), 2, "'bushes' is not one of"),
        (("city", "rules", "show", "trees", "--site", "teich"), 1, "of the trees"),
        (("city", "rules", "show", "trees", "--site", "linde", "--group", "Ring"), 2, "not both"),
        (("city", "rules", "set", "trees", "no.json", "--reason", "x"), 2, "does not exist"),
    ],
)
def test_wrong_words_are_one_sentence(
    fleet: Answering, city: City, words: tuple[str, ...], status: int, sentence: str
) -> None:
    told = fleet(*words)
    assert (told.status, is_one_sentence(told.err, sentence)) == (status, True)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"tension": 1}, "trees.tension must be a list"),
        ([], "holds no rules"),
        ({"drought": 1}, "trees has no drought"),
    ],
)
def test_a_file_that_holds_no_rules_is_one_sentence(
    fleet: Answering, city: City, tmp_path: Path, body: object, sentence: str
) -> None:
    told = fleet("city", "rules", "set", "trees", written(tmp_path, body), "--reason", "x")
    assert (told.status, is_one_sentence(told.err, sentence)) == (2, True)
