"""Calibrations from before they were records go on making what they made."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from databases import Databases
from factories import NOON
from servers import PostgresqlServer
from sqlalchemy import MetaData, select

from fleet_server import db
from fleet_server.models import Calibration


def test_calibrations_of_the_version_before_are_approved_and_the_newest_of_each_is_not_superseded(
    databases: Databases, tmp_path: Path
) -> None:
    is_postgresql = isinstance(databases, PostgresqlServer)
    url = (
        databases.url(databases.create_database())
        if isinstance(databases, PostgresqlServer)
        else f"sqlite:///{tmp_path}/before.sqlite3"
    )
    engine = db.make_engine(url)
    db.upgrade(engine, "0018")
    at, later = (
        moment if is_postgresql else int(moment.timestamp())
        for moment in (NOON, NOON + timedelta(days=1))
    )
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection, only=["sensor", "calibration"])
        sensor = {"id": 1, "serial": "W-1", "sensor_type": "ds18b20", "created_at": at}
        connection.execute(old.tables["sensor"].insert().values(sensor))
        row = {"sensor_id": 1, "slope": 1.0, "offset": 0.25, "u_absolute": 0.1, "u_relative": 0.0}
        row |= {"u_slope": 0.0, "u_offset": 0.0, "slope_offset_covariance": 0.0}
        row |= {"coverage_factor": 2.0, "reference": "data sheet", "created_at": at}
        for number, (name, version, kind, valid_from) in enumerate(
            (
                ("soil_temperature", 1, "factory", at),
                ("soil_temperature", 2, "linear", later),
                ("air_temperature", 1, "factory", at),
            ),
            1,
        ):
            one = {"id": number, "property": name, "version": version, "kind": kind}
            one |= {"valid_from": valid_from, "performed_by": f"by {number}"}
            connection.execute(old.tables["calibration"].insert().values({**row, **one}))

    db.upgrade(engine)

    with db.session_factory(engine)() as session:
        found = session.scalars(select(Calibration).order_by(Calibration.id)).all()
        assert [one.status for one in found] == ["superseded", "approved", "approved"]
        assert [(one.offset, one.curve, one.environment, one.fit) for one in found] == [
            (0.25, 0.0, {}, None)
        ] * 3
        assert [one.author for one in found] == ["by 1", "by 2", "by 3"]
    engine.dispose()
