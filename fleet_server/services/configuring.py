"""Desired configuration of nodes: what the server wants, as the document that goes to `dn/{id}/des`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound
from fleet_server.models import Configuration
from fleet_server.models.outbox import DESIRED
from fleet_server.services import outbox
from fleet_server.wire.desired import DesiredState

SAMPLE_S = "sample_s"
PUBLISH_S = "publish_s"
# A probe needs seconds to settle; a day without a word is an outage, not a schedule.
LIMITS_S = {SAMPLE_S: (60, 86_400), PUBLISH_S: (60, 86_400)}


class ConfigurationWrong(Invalid):
    """A setting that no node takes."""

    code = "configuration_wrong"


def configure_node(
    session: Session,
    node_id: str,
    settings: Mapping[str, int | float | str | bool | None],
    *,
    now: datetime,
) -> int:
    """Want these settings of a node, others stay. Returns the configuration's version; the same settings keep it. Committed on return.

    Raises:
        ConfigurationWrong: unknown setting, outside its limits, or sampling less often than publishing.
        NotFound: no such node.
    """
    with db.writing(session):
        configuration = session.get(Configuration, node_id, with_for_update=True)
        if configuration is None:
            raise NotFound(f"There is no node {node_id}.")
        wanted = {**configuration.settings, **settings}
        check_settings(wanted)
        if wanted == configuration.settings:
            return configuration.version
        configuration.settings = wanted
        configuration.version += 1
        configuration.changed_at = now
        session.flush()
        outbox.mark_changed(session, DESIRED, [node_id], now=now)
        return configuration.version


def check_settings(settings: Mapping[str, object]) -> None:
    """Raises ConfigurationWrong, with one sentence, when no node could take these settings."""
    for name, value in settings.items():
        if name not in LIMITS_S:
            raise ConfigurationWrong(f"{name} is not a setting of a node.")
        lowest, highest = LIMITS_S[name]
        if type(value) is not int or not lowest <= value <= highest:
            raise ConfigurationWrong(
                f"{name} must be a whole number from {lowest} to {highest} seconds."
            )
    sample_s, publish_s = settings.get(SAMPLE_S), settings.get(PUBLISH_S)
    if isinstance(sample_s, int) and isinstance(publish_s, int) and sample_s > publish_s:
        raise ConfigurationWrong("publish_s must be at least sample_s.")


def desired_states(session: Session, node_ids: Sequence[str]) -> dict[str, DesiredState]:
    """What these nodes shall be; nodes that are not registered are left out."""
    rows = session.execute(
        select(
            Configuration.node_id,
            Configuration.version,
            Configuration.settings,
            Configuration.renewed_certificate,
        ).where(Configuration.node_id.in_(node_ids))
    )
    return {
        node_id: DesiredState(
            config_version=version, config_values=settings, certificate=certificate
        )
        for node_id, version, settings, certificate in rows
    }
