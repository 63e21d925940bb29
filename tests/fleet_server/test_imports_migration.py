"""What nodes measured before others' measurements could be imported keeps its lineages, and the way back takes only what was imported."""

from __future__ import annotations

from pathlib import Path

from databases import Databases
from external_world import external_values, imported, make_sites
from servers import PostgresqlServer
from sqlalchemy import MetaData, Table, func, inspect, select

from fleet_server import db
from fleet_server.models import Lineage, Observation

_AT = 1_782_907_200


def test_lineages_and_revisions_of_the_version_before_stay_and_imports_come_and_go(
    databases: Databases, tmp_path: Path
) -> None:
    is_postgresql = isinstance(databases, PostgresqlServer)
    url = (
        databases.url(databases.create_database())
        if isinstance(databases, PostgresqlServer)
        else f"sqlite:///{tmp_path}/before.sqlite3"
    )
    engine = db.make_engine(url)
    db.upgrade(engine, "0022")
    with engine.begin() as connection:
        at = func.to_timestamp(_AT) if is_postgresql else _AT
        old = MetaData()
        old.reflect(connection)

        def add(table_name: str, **values: object) -> None:
            table: Table = old.tables[table_name]
            connection.execute(table.insert().values(values))

        add("sensor", id=1, serial="W-1", sensor_type="ds18b20", created_at=at)
        numbers = ("offset", "curve", "u_absolute", "u_relative", "u_slope", "u_offset", "u_curve")
        covariances = ("slope_offset", "offset_curve", "slope_curve")
        texts = ("procedure", "author", "edited_by", "withdrawn_reason")
        add(
            "calibration",
            **dict.fromkeys((*numbers, *(f"{one}_covariance" for one in covariances)), 0.0),
            **dict.fromkeys(texts, ""),
            id=1,
            sensor_id=1,
            property="water_temperature",
            version=1,
            status="approved",
            kind="factory",
            slope=1.0,
            coverage_factor=2.0,
            valid_from=at,
            created_at=at,
            performed_by="maker",
            reference="sheet",
            environment={},
        )
        add(
            "lineage",
            id=900,
            sensor_id=1,
            calibration_id=1,
            inputs="",
            conversion="tenths",
            correction="",
            rule_set="r",
            pipeline_version="p",
            coverage_factor=2.0,
        )
        site = {"id": 900, "code": "bach", "name": "Bach", "kind": "water", "created_at": at}
        place = {"latitude": 51.0, "longitude": 7.0, "is_public": True, "description": ""}
        add("site", **site, **place, details={})
        stream = {"id": 900, "site_id": 900, "property": "water_temperature", "unit": "Cel"}
        add("datastream", **stream, depth_cm=0, level="calibrated", created_at=at)
        value = {"value": 20.5, "u": 0.25, "flag": 1, "tests": 0, "lineage_id": 900}
        add("observation", datastream_id=900, sampled_at=at, known_from=at, pack_id=1, **value)
        done = {"state": "done", "ordered_at": at, "known_at": at}
        add("revision", id=900, kind="quality_control", reason="r", author="a", **done)

    db.upgrade(engine)
    with db.session_factory(engine)() as session:
        assert session.get_one(Lineage, 900).import_id is None
        make_sites(session)
        assert imported(session).plan.new == 5
        assert imported(session, "Zeit;O2;T\n01.07.2026 15:00;8,4;\n").plan.replacing == 1
        assert len(external_values(session, "dissolved_oxygen")) == 3
    if not is_postgresql:
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []

    db.take_back(engine, "0022")
    with engine.connect() as connection:
        assert "external_import" not in inspect(connection).get_table_names()
        assert connection.execute(select(Observation.value)).scalars().all() == [20.5]
    db.upgrade(engine)
    engine.dispose()
