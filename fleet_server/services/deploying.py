"""Sites, and which node stands where from when: deployments with their sensors, channels, datastreams and factory calibrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import (
    Calibration,
    Channel,
    Datastream,
    Deployment,
    Node,
    Receipt,
    Sensor,
    Site,
)
from fleet_server.services import auditing, node_life, observing, rights, thinning
from fleet_server.wire.states import NodeState
from hardware import catalogue

LEVEL_CALIBRATED = "calibrated"
# A probe is as its maker made it until somebody calibrates it, however long ago the reading was.
FACTORY_VALID_FROM = datetime(2000, 1, 1, tzinfo=UTC)
FACTORY_VERSION = 1


class SiteExists(Conflict):
    """The site's code is taken."""

    code = "site_exists"


class SiteWrong(Invalid):
    """The site cannot be like this."""

    code = "site_wrong"


class SlotUnknown(NotFound):
    """The node's model has no such slot."""

    code = "slot_unknown"


class AlreadyDeployed(Conflict):
    """The node is at a site in that time."""

    code = "already_deployed"


@dataclass(frozen=True)
class NewSite:
    """A place to measure; position in WGS84 degrees."""

    code: str
    name: str
    kind: str
    latitude: float
    longitude: float
    description: str = ""


def create_site(session: Session, site: NewSite, *, is_public: bool, now: datetime) -> Site:
    """A new site. Committed on return.

    Raises:
        SiteWrong: code, name, kind or position cannot be.
        SiteExists: the code is taken.
    """
    if not (site.code.strip() and site.name.strip()):
        raise SiteWrong("A site has a code and a name; give both.")
    if site.kind not in ("tree", "water"):
        raise SiteWrong(f"A site is a tree or a water, not {site.kind!r}.")
    if not (-90 <= site.latitude <= 90 and -180 <= site.longitude <= 180):
        raise SiteWrong(
            "A site's position is given in WGS84 degrees: latitude from -90 to 90, longitude from -180 to 180."
        )
    with db.writing(session):
        if find_site(session, site.code) is not None:
            raise SiteExists(f"There is already a site {site.code}.")
        row = Site(
            code=site.code,
            name=site.name,
            kind=site.kind,
            latitude=site.latitude,
            longitude=site.longitude,
            description=site.description,
            is_public=is_public,
            created_at=now,
        )
        rights.check_site_kind(session, site.kind, what=f"kind of site {site.kind} for you")
        session.add(row)
        session.flush()
        auditing.record(
            session,
            "site_made",
            subject=f"site {site.code}",
            now=now,
            name=site.name,
            kind=site.kind,
            is_public=is_public,
        )
    return row


def find_site(session: Session, code: str) -> Site | None:
    """The site with this code."""
    return session.scalar(select(Site).where(Site.code == code))


def deploy_node(
    session: Session,
    node_id: str,
    *,
    site_code: str,
    from_at: datetime,
    now: datetime,
    serials: Mapping[str, str] | None = None,
) -> Deployment:
    """Put a node at a site from `from_at` on; what it has sampled there already becomes observations. Committed on return.

    Args:
        serials: serial number of the probe in each slot; a slot left out gets a sensor of its own with a made-up serial number
            (`<node id>/<slot>`). A sensor known by its serial number keeps its calibrations. By default those that the node was
            registered with.

    Raises:
        NotFound: no such node or site.
        SiteWrong: the node's model is made for another kind of site.
        SlotUnknown: a serial number is for a slot that the node's model does not have.
        AlreadyDeployed: the node is at a site, or was after `from_at`.
        WayClosed: the node's state leads to no site (lost, retired …).
    """
    with db.writing(session):
        node, site = session.get(Node, node_id), find_site(session, site_code)
        if node is None:
            raise NotFound(f"There is no node {node_id}.")
        if site is None:
            raise NotFound(f"There is no site {site_code}.")
        rights.check_node_model(session, node.model, node_id=node_id)
        serials = serials or node.planned_serials
        model = catalogue.load_node_model(node.model)
        if model.site_kind != site.kind:
            raise SiteWrong(
                f"{node.model} is made for a {model.site_kind}, {site.code} is a {site.kind}."
            )
        _refuse_unknown_slots(model, serials or {})
        # Ingest holds this row while it decides which readings have a channel: one of the two goes first.
        session.get_one(Receipt, node_id, with_for_update=True).channels_version += 1
        _refuse_overlap(session, node_id, from_at)
        deployment = Deployment(node_id=node_id, site_id=site.id, from_at=from_at)
        session.add(deployment)
        session.flush()
        for slot in model.slots:
            serial = (serials or {}).get(slot.id, f"{node_id}/{slot.id}")
            _mount(session, deployment, slot, serial=serial, now=now)
        observing.observe_stored(session, node_id=node_id, now=now)
        thinning.observe_stored(session, node_id=node_id, now=now)
        node.planned_site_id = node.planned_serials = None
        node_life.pass_on(
            session,
            node,
            NodeState.DEPLOYED,
            now=now,
            site=site_code,
            since=_moment(from_at),
            serials=dict(serials or {}),
        )
    return deployment


def nodes_without_site(session: Session) -> list[Node]:
    """Nodes that stand nowhere now."""
    at_a_site = select(Deployment.node_id).where(Deployment.to_at.is_(None))
    return list(session.scalars(select(Node).where(Node.node_id.not_in(at_a_site))))


def end_deployment(session: Session, node_id: str, *, to_at: datetime, now: datetime) -> None:
    """The node leaves its site at `to_at`; its sensors are free. Committed on return. Safe to repeat.

    Raises:
        Conflict: `to_at` is not after the deployment began, or there are observations from later.
    """
    with db.writing(session):
        receipt = session.get(Receipt, node_id, with_for_update=True)
        deployment = session.scalar(
            select(Deployment).where(Deployment.node_id == node_id, Deployment.to_at.is_(None))
        )
        if deployment is None or receipt is None:
            return
        node = session.get_one(Node, node_id)
        rights.check_node_model(session, node.model, node_id=node_id)
        receipt.channels_version += 1
        if to_at <= deployment.from_at:
            raise Conflict(
                f"The deployment began at {_moment(deployment.from_at)}; it must end after that."
            )
        channels = session.scalars(
            select(Channel).where(Channel.deployment_id == deployment.id, Channel.to_at.is_(None))
        ).all()
        datastream_ids = [channel.datastream_id for channel in channels]
        if observing.has_observations_from(
            session, datastream_ids, to_at
        ) or thinning.has_ranges_from(session, datastream_ids, to_at):
            raise Conflict("There are observations from after that time; end the deployment later.")
        for channel in channels:
            channel.to_at = to_at
        deployment.to_at = to_at
        if node.state in (NodeState.DEPLOYED, NodeState.MAINTENANCE):
            node_life.pass_on(session, node, NodeState.ENROLLED, now=now, until=_moment(to_at))
            return
        # Lost, for instance: that it left its site does not bring it back.
        auditing.record(
            session, "node_taken_down", subject=f"node {node_id}", now=now, until=_moment(to_at)
        )


def _refuse_overlap(session: Session, node_id: str, from_at: datetime) -> None:
    last = session.scalar(
        select(Deployment)
        .where(Deployment.node_id == node_id)
        .order_by(Deployment.from_at.desc())
        .limit(1)
    )
    if last is None:
        return
    if last.to_at is None:
        since = _moment(last.from_at)
        raise AlreadyDeployed(
            f"Node {node_id} is at a site since {since}; end that deployment first."
        )
    if last.to_at > from_at:
        until = _moment(last.to_at)
        raise AlreadyDeployed(f"Node {node_id} was at a site until {until}; begin then or later.")


def _refuse_unknown_slots(model: catalogue.NodeModel, serials: Mapping[str, str]) -> None:
    known = [slot.id for slot in model.slots]
    for slot in serials:
        if slot not in known:
            raise SlotUnknown(f"{model.id} has no slot {slot}; it has {', '.join(known)}.")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _mount(
    session: Session, deployment: Deployment, slot: catalogue.Slot, *, serial: str, now: datetime
) -> None:
    sensor = _sensor(session, slot, serial, now)
    for channel in slot.channels:
        datastream = _datastream(session, deployment.site_id, channel, now)
        session.add(
            Channel(
                deployment_id=deployment.id,
                key=channel.key,
                sensor_id=sensor.id,
                datastream_id=datastream.id,
                property=channel.property,
                unit=channel.unit,
                raw_unit=channel.raw_unit,
                depth_cm=channel.depth_cm,
                conversion=channel.conversion,
                needs=dict(channel.needs),
                from_at=deployment.from_at,
            )
        )
    session.flush()


def _sensor(session: Session, slot: catalogue.Slot, serial: str, now: datetime) -> Sensor:
    known = session.scalar(select(Sensor).where(Sensor.serial == serial))
    if known is not None:
        _refuse_wrong_or_mounted(session, known, slot)
        return known
    sensor = Sensor(serial=serial, sensor_type=slot.sensor_type, created_at=now)
    session.add(sensor)
    session.flush()
    sensor_type = catalogue.load_sensor_type(slot.sensor_type)
    for quantity in sensor_type.quantities:
        session.add(
            Calibration(
                sensor_id=sensor.id,
                property=quantity.property,
                version=FACTORY_VERSION,
                kind="factory",
                slope=quantity.factory.slope,
                offset=quantity.factory.offset,
                u_absolute=quantity.accuracy.absolute,
                u_relative=quantity.accuracy.relative,
                u_slope=0.0,
                u_offset=0.0,
                slope_offset_covariance=0.0,
                coverage_factor=2.0,
                valid_from=FACTORY_VALID_FROM,
                performed_by=sensor_type.manufacturer,
                reference=sensor_type.source,
                created_at=now,
            )
        )
    session.flush()
    return sensor


def _refuse_wrong_or_mounted(session: Session, sensor: Sensor, slot: catalogue.Slot) -> None:
    if sensor.sensor_type != slot.sensor_type:
        raise Conflict(
            f"Sensor {sensor.serial} is a {sensor.sensor_type}, not a {slot.sensor_type}."
        )
    mounted = select(Channel.id).where(Channel.sensor_id == sensor.id, Channel.to_at.is_(None))
    if session.scalar(mounted.limit(1)) is not None:
        raise Conflict(f"Sensor {sensor.serial} is mounted at another node.")


def _datastream(
    session: Session, site_id: int, channel: catalogue.Channel, now: datetime
) -> Datastream:
    known = session.scalar(
        select(Datastream).where(
            Datastream.site_id == site_id,
            Datastream.property == channel.property,
            Datastream.depth_cm == channel.depth_cm,
            Datastream.level == LEVEL_CALIBRATED,
        )
    )
    if known is not None:
        return known
    datastream = Datastream(
        site_id=site_id,
        property=channel.property,
        unit=channel.unit,
        depth_cm=channel.depth_cm,
        level=LEVEL_CALIBRATED,
        created_at=now,
    )
    session.add(datastream)
    session.flush()
    return datastream
