"""A tree and a pond at which others measured, too."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from factories import NOON
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Datastream, ImportKind, Observation, Site
from fleet_server.services import external_importing, rights, sites
from fleet_server.services.external_files import MeasurementRules, ValueColumn
from fleet_server.services.external_importing import Imported, Origin
from fleet_server.services.sites import NewSite

LATER = NOON + timedelta(hours=12)
LABORATORY = Origin(
    ImportKind.LABORATORY, "Umweltlabor", method="DIN EN ISO 5814", report_number="4711"
)
POND_FILE = (
    "Zeit;O2;T\n01.07.2026 14:00;8,1;20,5\n01.07.2026 15:00;8,3;\n01.07.2026 16:00;< 0,5;20,9\n"
)
POND_RULES = MeasurementRules(
    (
        ValueColumn("O2", "dissolved_oxygen", "mg/L", u="0.2"),
        ValueColumn("T", "water_temperature", "°C"),
    ),
    "Zeit",
    zone="Europe/Berlin",
    site_code="teich",
)


def make_sites(session: Session) -> None:
    """A pond `teich` and a tree `linde`."""
    for code, kind in (("teich", "water"), ("linde", "tree")):
        new = NewSite(code, f"Site {code}", kind, 51.48, 7.22)
        sites.create_site(session, new, is_public=True, now=NOON)


def imported(
    session: Session,
    text: str = POND_FILE,
    rules: MeasurementRules = POND_RULES,
    *,
    origin: Origin = LABORATORY,
    minutes: int = 0,
) -> Imported:
    """A file, imported so many minutes after `LATER`."""
    now = LATER + timedelta(minutes=minutes)
    return external_importing.import_measurements(session, text.encode(), rules, origin, now=now)


def act_as(session: Session, name: str, scope: rights.Scope = rights.Scope.ALL) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right), scope))


def external_values(session: Session, observed_property: str) -> Mapping[str, float | None]:
    """Current values of all external datastreams of a property, by the hour in UTC."""
    rows = session.execute(
        select(Observation.sampled_at, Observation.value)
        .join(Datastream, Datastream.id == Observation.datastream_id)
        .join(Site, Site.id == Datastream.site_id)
        .where(Datastream.level == "external", Datastream.property == observed_property)
        .order_by(Observation.sampled_at)
    )
    return {f"{at:%H:%M}": value for at, value in rows}
