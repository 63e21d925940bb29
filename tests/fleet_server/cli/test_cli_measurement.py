"""`fleet measurement` as it is typed, over a real database, with files as laboratories and networks write them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import SqliteDatabases
from external_world import LATER, POND_FILE, external_values, make_sites
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.models import ExternalValue, Observation

_SHARED = Path(
    os.environ.get(
        "STADTSENSOR_SERIES", Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
    )
)
NEEDS_SERIES = [
    pytest.mark.needs_series,
    pytest.mark.skipif(
        not (_SHARED / "nerrs_grand_bay_2021_07.csv").is_file(),
        reason="the measured series (STADTSENSOR_SERIES, or shared/data beside the checkout) are not here",
    ),
]
POND = ("--site", "teich", "--time", "Zeit", "--zone", "Europe/Berlin")
OXYGEN = ("--values", "O2,property=dissolved_oxygen,unit=mg/L,u=0.2")


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{int(LATER.timestamp())}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            make_sites(opened)
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def test_file_from_the_rehearsal_to_the_withdrawal(
    session: Session, fleet: Answering, tmp_path: Path
) -> None:
    file = tmp_path / "labor.csv"
    file.write_text(POND_FILE)
    typed = ("measurement", "import", str(file), "--kind", "laboratory", "--source", "Labor Nord")
    told = json.loads(fleet(*typed, *POND, *OXYGEN, "--rehearse", "--json").out)
    assert (told["import"], told["new"], told["limits"], told["rehearsal"]) == (None, 3, 1, True)
    status, out, _ = fleet(*typed, *POND, *OXYGEN)
    assert (status, "Imported as import 1." in out) == (0, True)
    status, _, err = fleet(*typed, *POND, *OXYGEN)
    assert (status, is_one_sentence(err, "nothing is imported twice")) == (1, True)
    assert "1  laboratory  Labor Nord  labor.csv  3 values" in fleet("measurement", "list").out
    assert fleet("measurement", "show", "1", "--file").out == POND_FILE

    rules = tmp_path / "rules.json"
    rules.write_text(fleet("measurement", "show", "1", "--rules").out)
    file.write_text(POND_FILE.replace("8,3", "8,4"))
    told = json.loads(fleet(*typed, "--rules", str(rules), "--json").out)
    assert (told["import"], told["new"], told["replacing"]) == (2, 0, 3)
    assert external_values(session, "dissolved_oxygen")["13:00"] == 8.4
    session.rollback()
    assert fleet("measurement", "withdraw", "2", "--reason", "no").status == 0
    assert external_values(session, "dissolved_oxygen")["13:00"] == 8.3
    session.rollback()
    status, out, _ = fleet("verify", "--data", str(tmp_path), "--json")
    assert (status, json.loads(out)["observations_not_reproducible"]) == (0, 0)


def test_wrong_cells_are_told_with_row_and_column_and_the_status_is_1(
    fleet: Answering, session: Session, tmp_path: Path
) -> None:
    file = tmp_path / "labor.csv"
    file.write_text("Zeit;O2\n01.07.2026 14:00;acht\n25.10.2025 02:30;8\n26.10.2025 02:30;8\n")
    typed = ("measurement", "import", str(file), "--source", "Labor", *POND, *OXYGEN)
    status, out, _ = fleet(*typed)
    assert status == 1
    assert "Row 2, O2: 'acht' is no number." in out
    assert "Row 4, Zeit: '26.10.2025 02:30' is twice in this time zone" in out
    assert "Nothing was imported." in out
    assert session.scalar(select(func.count()).select_from(ExternalValue)) == 0


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (("--values", "O2,sweet=1"), "'sweet=1' is none of"),
        (("--values", "O2,depth=deep"), "'deep' is no depth"),
        (("--values", "O2,property=sweet,unit=g"), "'sweet' is no property"),
        (("--values", "O2,property=turbidity,unit=NTU"), "NTU does not measure"),
        ((*OXYGEN, "--flag", "good=7"), "good stands for one of"),
        ((*OXYGEN, "--site-name", "x"), "'x' is not THEIRS=OURS"),
        ((*OXYGEN, "--rules", "{rules}"), "holds no rules"),
    ],
)
def test_wrong_use_is_one_sentence(
    fleet: Answering, session: Session, tmp_path: Path, typed: tuple[str, ...], sentence: str
) -> None:
    file, rules = tmp_path / "labor.csv", tmp_path / "rules.json"
    file.write_text(POND_FILE)
    rules.write_text('{"values": [{"column": 5}], "time": "Zeit", "missing": []}')
    given = [one.replace("{rules}", str(rules)) for one in typed]
    status, _, err = fleet("measurement", "import", str(file), "--source", "L", *POND, *given)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err


def test_hand_reading_is_typed_with_a_comma(fleet: Answering, session: Session) -> None:
    typed = ("measurement", "hand", "teich", "water_level", "142,5", "cm", "--by", "Ada")
    status, out, _ = fleet(*typed, "--u", "0,5", "--at", "2026-07-01T12:00:00Z")
    assert (status, out) == (0, "It is kept as import 1.\n")
    assert external_values(session, "water_level") == {"12:00": 1.425}
    session.rollback()
    status, _, err = fleet(*typed, "--at", "2036-07-01T12:00:00Z")
    assert (status, is_one_sentence(err, "lies in the future")) == (2, True)
    assert "Nobody else measured" in fleet("measurement", "check-points").out


def test_hand_reading_below_zero_is_a_number_and_no_option(
    fleet: Answering, session: Session
) -> None:
    typed = ("measurement", "hand", "teich", "air_temperature", "-2,5", "°C", "--by", "Ada")
    status, out, _ = fleet(*typed, "--at", "2026-07-01T12:00:00Z")
    assert (status, out) == (0, "It is kept as import 1.\n")
    assert external_values(session, "air_temperature") == {"12:00": -2.5}
    status, _, err = fleet(*typed, "--whom", "Ada")
    assert status == 2
    assert "--whom" in err


@pytest.mark.parametrize("series", [pytest.param(_SHARED, id="nerrs", marks=NEEDS_SERIES)])
def test_month_of_a_lagoon_is_read_with_its_providers_flags(
    fleet: Answering, session: Session, series: Path
) -> None:
    columns = {
        "Temp": "water_temperature,unit=°C",
        "SpCond": "conductivity_25,unit=mS/cm",
        "DO_Pct": "oxygen_saturation,unit=%",
        "DO_mgl": "dissolved_oxygen,unit=mg/L",
        "pH": "ph,unit=pH",
    }
    values = [
        part
        for name, what in columns.items()
        for part in ("--values", f"{name},property={what},flag-column=F_{name}")
    ]
    flags = [
        part for pair in ("<0>=1", "<1>=3", "<-3>=4", "<4>=1", "<5>=1") for part in ("--flag", pair)
    ]
    told = json.loads(
        fleet(
            *("measurement", "import", str(series / "nerrs_grand_bay_2021_07.csv")),
            *("--source", "NERRS, Grand Bay", "--site-column", "StationCode"),
            *("--site-name", "gndblwq=teich", "--time", "DateTimeStamp", "--date-order", "mdy"),
            *("--zone", "-06:00", *values, *flags, "--json"),
        ).out
    )
    assert told["wrong"] == []
    assert (told["import"], told["new"] > 13_000, told["without_u"]) == (1, True, told["new"])
    flagged = session.execute(select(Observation.flag, func.count()).group_by(Observation.flag))
    assert {flag for flag, _ in flagged} >= {1, 3}


@pytest.mark.parametrize("series", [pytest.param(_SHARED, id="gravimetric", marks=NEEDS_SERIES)])
@pytest.mark.usefixtures("session")
def test_gravimetric_samples_are_read_at_their_depths_and_doubles_are_told(
    fleet: Answering, series: Path
) -> None:
    told = json.loads(
        fleet(
            *("measurement", "import", str(series / "swcalibrater_sensor_vs_gravimetric.csv")),
            *("--kind", "laboratory", "--source", "Brenner", "--method", "gravimetric"),
            *("--site", "linde", "--time", "Date", "--date-order", "dmy", "--time-of-day", "12:00"),
            *("--zone", "Europe/Rome", "--depth-column", "Soil depth"),
            *("--values", "Sample VWC,property=soil_water_content,unit=m³/m³"),
            *("--rehearse", "--json"),
        ).out
    )
    # Forty stations as one tree: the same day and depth comes again.
    assert told["new"] > 10
    assert {one["code"] for one in told["wrong"]} == {"cell_wrong"}
    assert all("same instant already" in one["sentence"] for one in told["wrong"])
