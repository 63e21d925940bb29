"""Which node stands at which site from when: deployments with their sensors, channels, datastreams and factory calibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import (
    Calibration,
    CalibrationKind,
    CalibrationStatus,
    Channel,
    Datastream,
    Deployment,
    Node,
    Receipt,
    Sensor,
    Site,
)
from fleet_server.services import (
    auditing,
    judged_streams,
    node_life,
    observing,
    revising,
    rights,
    thinning,
)
from fleet_server.services.sites import KIND_WORDS
from fleet_server.services.sites import NewSite as NewSite
from fleet_server.services.sites import SiteExists as SiteExists
from fleet_server.services.sites import SiteWrong as SiteWrong
from fleet_server.services.sites import create_site as create_site
from fleet_server.services.sites import find_site as find_site
from fleet_server.wire.states import NodeState
from hardware import catalogue

LEVEL_CALIBRATED = "calibrated"
# A probe is as its maker made it until somebody calibrates it, however long ago the reading was.
FACTORY_VALID_FROM = datetime(2000, 1, 1, tzinfo=UTC)
FACTORY_VERSION = 1
_DEEPEST_CM = 10_000
_LONGEST_SERIAL = 80


class SlotUnknown(NotFound):
    """The node's model has no such slot."""

    code = "slot_unknown"


class DepthWrong(Invalid):
    """A probe cannot be at this depth."""

    code = "depth_wrong"


class SerialWrong(Invalid):
    """No serial number of a probe."""

    code = "serial_wrong"


class NotDeployed(Conflict):
    """The node is at no site."""

    code = "not_deployed"


class SiteClosed(Conflict):
    """Nothing is mounted at this site any more."""

    code = "site_closed"


class AlreadyDeployed(Conflict):
    """The node is at a site in that time."""

    code = "already_deployed"


def deploy_node(
    session: Session,
    node_id: str,
    *,
    site_code: str,
    from_at: datetime,
    now: datetime,
    serials: Mapping[str, str] | None = None,
    depths_cm: Mapping[str, int] | None = None,
) -> Deployment:
    """Put a node at a site from `from_at` on; what it has sampled there already becomes observations. Committed on return.

    Args:
        serials: serial number of the probe in each slot; a slot left out gets a sensor of its own with a made-up serial number
            (`<node id>/<slot>`). A sensor known by its serial number keeps its calibrations. By default those that the node was
            registered with.
        depths_cm: where a probe is at another depth than the node's model says: by slot, or by channel key. A reading's datastream
            follows from its site, property and depth.

    Raises:
        NotFound: no such node or site.
        SiteWrong: the node's model is made for another kind of site.
        SiteClosed: nothing is mounted there any more.
        SlotUnknown: a serial number or a depth is for a slot that the node's model does not have.
        DepthWrong: no depth, or two probes of one property would be at the same.
        Conflict: a sensor is of another type than its slot, or mounted elsewhere in that time.
        AlreadyDeployed: the node is at a site, or was after `from_at`.
        WayClosed: the node's state leads to no site (lost, retired …).
    """
    with db.writing(session):
        node, site = session.get(Node, node_id), find_site(session, site_code)
        if node is None:
            raise NotFound("There is no node %(node_id)s.", node_id=node_id)
        if site is None:
            raise NotFound("There is no site %(code)s.", code=site_code)
        rights.check_node_model(session, node.model, node_id=node_id)
        by_slot = {**(node.planned_serials or {}), **(serials or {})}
        if site.closed_at is not None:
            raise SiteClosed("Site %(code)s is closed; open it again first.", code=site.code)
        model = catalogue.load_node_model(node.model)
        if model.site_kind != site.kind:
            raise SiteWrong(
                "%(model)s is made for a %(wanted_kind)s, %(code)s is a %(site_kind)s.",
                model=node.model,
                wanted_kind=KIND_WORDS[model.site_kind],
                code=site.code,
                site_kind=KIND_WORDS[site.kind],
            )
        _refuse_unknown_slots(model, by_slot)
        depths = _depths(model, depths_cm or {})
        # Ingest holds this row while it decides which readings have a channel: one of the two goes first.
        session.get_one(Receipt, node_id, with_for_update=True).channels_version += 1
        _refuse_overlap(session, node_id, from_at)
        # A probe at another depth may be the one that others of the site were judged beside of.
        surroundings = judged_streams.surroundings(session, site.id)
        deployment = Deployment(node_id=node_id, site_id=site.id, from_at=from_at)
        session.add(deployment)
        session.flush()
        for slot in model.slots:
            serial = by_slot.get(slot.id, f"{node_id}/{slot.id}")
            _mount(session, deployment, slot, serial=serial, depths=depths, now=now)
        judged_streams.note_deployed(session, site.id, surroundings, from_at)
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
            serials=by_slot,
            depths_cm=dict(depths_cm or {}),
        )
    return deployment


def swap_sensor(
    session: Session, node_id: str, slot_id: str, *, serial: str, at: datetime, now: datetime
) -> Sensor:
    """Another probe is in the slot from `at` on: its readings go on in the same datastreams, with its own calibrations.

    Committed on return. The old probe is free, and keeps its calibrations wherever it goes next.

    Args:
        serial: of the probe that is in the slot now; a known one keeps its calibrations.

    Raises:
        NotFound: no such node.
        NotDeployed: the node is at no site.
        SlotUnknown: the node has no such slot.
        Conflict: the probe is there already, is of another type or mounted elsewhere in that time; or there are observations of the slot
            from after `at`.
    """
    with db.writing(session):
        deployment = _standing(session, node_id)
        channels = _channels_of_slot(session, deployment, slot_id)
        old = session.get_one(Sensor, channels[0].sensor_id)
        if old.serial == serial:
            raise Conflict(
                "Sensor %(serial)s is in slot %(slot_id)s already.", serial=serial, slot_id=slot_id
            )
        since = max(channel.from_at for channel in channels)
        if at <= since:
            raise Conflict(
                "Sensor %(serial)s is in the slot since %(since)s; swap later.",
                serial=old.serial,
                since=since,
            )
        if thinning.has_ranges_from(session, [one.datastream_id for one in channels], at):
            raise Conflict(
                "Of a day after that time the node kept only extremes, which cannot be corrected; swap the probe later."
            )
        slot = _slot(_model_of(session, node_id), slot_id)
        for channel in channels:
            channel.to_at = at
        session.flush()
        new = _sensor(session, slot, serial, from_at=at, now=now)
        session.add_all(_continued(channel, new, at) for channel in channels)
        session.flush()
        observing.observe_stored(session, node_id=node_id, now=now)
        thinning.observe_stored(session, node_id=node_id, now=now)
        # Tests look at when a probe was mounted, that of the values before, too.
        judged_streams.set_back(session, channels[0].datastream_id, at)
        _correct_since(session, new, channels, at, now=now)
        auditing.record(
            session,
            "sensor_swapped",
            subject=f"node {node_id}",
            now=now,
            slot=slot_id,
            since=_moment(at),
            old=old.serial,
            new=serial,
        )
    return new


def replace_node(
    session: Session,
    old_node_id: str,
    new_node_id: str,
    *,
    at: datetime,
    now: datetime,
    serials: Mapping[str, str] | None = None,
    keeps_probes: bool = True,
) -> Deployment:
    """Another node stands at the site from `at` on and feeds the same datastreams; the old one is free. Committed on return.

    Args:
        serials: of the probes at the new node, as in `deploy_node`.
        keeps_probes: what is in the ground stays there: a slot that both nodes have gets the old one's probe, unless `serials` says
            another. False: the new node brings its own.

    Raises:
        NotDeployed: the old node is at no site.
        what `end_deployment` and `deploy_node` raise; then both nodes stay where they were.
    """
    if old_node_id == new_node_id:
        raise Conflict("A node cannot replace itself; name the new one.")
    with db.writing(session):
        _lock(session, sorted((old_node_id, new_node_id)))
        standing = _standing(session, old_node_id)
        site = session.get_one(Site, standing.site_id)
        old, new = (_model_of(session, one) for one in (old_node_id, new_node_id))
        kept = _probes_of(session, standing, old, new) if keeps_probes else {}
        depths = _given_depths(session, standing, new)
        end_deployment(session, old_node_id, to_at=at, now=now)
        session.flush()
        deployment = deploy_node(
            session,
            new_node_id,
            site_code=site.code,
            from_at=at,
            now=now,
            serials={**kept, **(serials or {})},
            depths_cm=depths,
        )
        auditing.record(
            session,
            "node_replaced",
            subject=f"node {old_node_id}",
            now=now,
            by_node=new_node_id,
            site=site.code,
            since=_moment(at),
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
                "The deployment began at %(since)s; it must end after that.",
                since=deployment.from_at,
            )
        channels = session.scalars(
            select(Channel).where(Channel.deployment_id == deployment.id, Channel.to_at.is_(None))
        ).all()
        late = max((channel.from_at for channel in channels), default=deployment.from_at)
        if to_at <= late:
            raise Conflict(
                "A sensor was swapped at %(since)s; end the deployment after that.",
                since=late,
            )
        datastream_ids = [channel.datastream_id for channel in channels]
        if _has_observed(session, datastream_ids, to_at):
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
        raise AlreadyDeployed(
            "Node %(node_id)s is at a site since %(since)s; end that deployment first.",
            node_id=node_id,
            since=last.from_at,
        )
    if last.to_at > from_at:
        raise AlreadyDeployed(
            "Node %(node_id)s was at a site until %(until)s; begin then or later.",
            node_id=node_id,
            until=last.to_at,
        )


def _refuse_unknown_slots(model: catalogue.NodeModel, serials: Mapping[str, str]) -> None:
    known = [slot.id for slot in model.slots]
    for slot in serials:
        if slot not in known:
            raise SlotUnknown(
                "%(model)s has no slot %(slot)s; it has %(known)s.",
                model=model.id,
                slot=slot,
                known=", ".join(known),
            )


def _lock(session: Session, node_ids: Sequence[str]) -> None:
    """The rows that ingest holds, too, always in one order: two who replace at once wait for each other."""
    for node_id in node_ids:
        if session.get(Receipt, node_id, with_for_update=True) is None:
            raise NotFound("There is no node %(node_id)s.", node_id=node_id)


def _standing(session: Session, node_id: str) -> Deployment:
    """The node's deployment that goes on; ingest waits, and looks up the node's channels anew."""
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, node.model, node_id=node_id)
    session.get_one(Receipt, node_id, with_for_update=True).channels_version += 1
    standing = session.scalar(
        select(Deployment).where(Deployment.node_id == node_id, Deployment.to_at.is_(None))
    )
    if standing is None:
        raise NotDeployed("Node %(node_id)s is at no site; put it at one first.", node_id=node_id)
    return standing


def _model_of(session: Session, node_id: str) -> catalogue.NodeModel:
    return catalogue.load_node_model(session.get_one(Node, node_id).model)


def _slot(model: catalogue.NodeModel, slot_id: str) -> catalogue.Slot:
    _refuse_unknown_slots(model, {slot_id: ""})
    return next(slot for slot in model.slots if slot.id == slot_id)


def _channels_of_slot(session: Session, deployment: Deployment, slot_id: str) -> list[Channel]:
    keys = [one.key for one in _slot(_model_of(session, deployment.node_id), slot_id).channels]
    channels = session.scalars(
        select(Channel)
        .where(
            Channel.deployment_id == deployment.id, Channel.key.in_(keys), Channel.to_at.is_(None)
        )
        .order_by(Channel.key)
    ).all()
    if not channels:
        raise SlotUnknown(
            "Slot %(slot_id)s of %(node_id)s delivers nothing there.",
            slot_id=slot_id,
            node_id=deployment.node_id,
        )
    return list(channels)


def _continued(channel: Channel, sensor: Sensor, at: datetime) -> Channel:
    """The same channel with another probe: what a key means was settled when the node was deployed."""
    return Channel(
        deployment_id=channel.deployment_id,
        key=channel.key,
        sensor_id=sensor.id,
        datastream_id=channel.datastream_id,
        property=channel.property,
        unit=channel.unit,
        raw_unit=channel.raw_unit,
        depth_cm=channel.depth_cm,
        conversion=channel.conversion,
        needs=dict(channel.needs),
        from_at=at,
    )


def _has_observed(session: Session, datastream_ids: Sequence[int], from_at: datetime) -> bool:
    return observing.has_observations_from(
        session, datastream_ids, from_at
    ) or thinning.has_ranges_from(session, datastream_ids, from_at)


def _correct_since(
    session: Session, new: Sensor, channels: Sequence[Channel], at: datetime, *, now: datetime
) -> None:
    """What was observed since then as the old probe's is the new one's, and made anew by its calibrations."""
    streams: set[int] = set()
    for observed_property in {channel.property for channel in channels}:
        streams.update(
            revising.streams_of(
                session,
                sensor_id=new.id,
                observed_property=observed_property,
                from_at=at,
                to_at=None,
            )
        )
    revising.order_for_streams(
        session,
        sorted(streams),
        kind="swap",
        reason=f"probe {new.serial} was mounted on {at:%Y-%m-%d %H:%M:%S} UTC",
        author=rights.actor_of(session).name,
        from_at=at,
        now=now,
    )


def _probes_of(
    session: Session, standing: Deployment, old: catalogue.NodeModel, new: catalogue.NodeModel
) -> dict[str, str]:
    """Slot of the new node → serial number of the probe that is in the same slot of the old one."""
    mounted = session.execute(
        select(Channel.key, Sensor.serial)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Channel.deployment_id == standing.id, Channel.to_at.is_(None))
    )
    serials = {row.key: row.serial for row in mounted}
    types = {slot.id: slot.sensor_type for slot in old.slots}
    kept = {}
    for slot in new.slots:
        found = [serials[one.key] for one in slot.channels if one.key in serials]
        sensor_type = catalogue.load_sensor_type(slot.sensor_type)
        goes_with_the_box = sensor_type.mounting.place == "enclosure"
        if found and types.get(slot.id) == slot.sensor_type and not goes_with_the_box:
            kept[slot.id] = found[0]
    return kept


def _given_depths(
    session: Session, standing: Deployment, new: catalogue.NodeModel
) -> dict[str, int]:
    """Channel key → depth, where the old node's channel of the same key and property was at another than the new model says."""
    query = select(Channel.key, Channel.property, Channel.depth_cm).where(
        Channel.deployment_id == standing.id, Channel.to_at.is_(None)
    )
    depths = {(key, name): depth for key, name, depth in session.execute(query)}
    return {
        one.key: depths[one.key, one.property]
        for one in new.channels
        if depths.get((one.key, one.property), one.depth_cm) != one.depth_cm
    }


def _depths(model: catalogue.NodeModel, given: Mapping[str, int]) -> dict[str, int]:
    """Channel key → depth; a slot's name stands for all its channels."""
    by_slot = {slot.id: [one.key for one in slot.channels] for slot in model.slots}
    depths = {one.key: one.depth_cm for one in model.channels}
    plain = {(one.property, one.depth_cm) for one in model.channels}
    for name, depth_cm in given.items():
        if name not in by_slot and name not in depths:
            known = ", ".join(by_slot)
            raise SlotUnknown(
                "%(model)s has no slot %(slot)s; it has %(known)s.",
                model=model.id,
                slot=name,
                known=known,
            )
        if not 0 <= depth_cm <= _DEEPEST_CM:
            raise DepthWrong(
                "A depth lies between 0 and %(deepest_cm)s cm, not at %(depth_cm)s.",
                deepest_cm=_DEEPEST_CM,
                depth_cm=depth_cm,
            )
        depths |= dict.fromkeys(by_slot.get(name, [name]), depth_cm)
    if len({(one.property, depths[one.key]) for one in model.channels}) < len(plain):
        raise DepthWrong(
            "Two probes of one property would be at the same depth, and their readings one datastream: give "
            "each its own."
        )
    return depths


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _mount(
    session: Session,
    deployment: Deployment,
    slot: catalogue.Slot,
    *,
    serial: str,
    depths: Mapping[str, int],
    now: datetime,
) -> None:
    sensor = _sensor(session, slot, serial, from_at=deployment.from_at, now=now)
    for channel in slot.channels:
        depth_cm = depths[channel.key]
        datastream = _datastream(session, deployment.site_id, channel, depth_cm, now=now)
        session.add(
            Channel(
                deployment_id=deployment.id,
                key=channel.key,
                sensor_id=sensor.id,
                datastream_id=datastream.id,
                property=channel.property,
                unit=channel.unit,
                raw_unit=channel.raw_unit,
                depth_cm=depth_cm,
                conversion=channel.conversion,
                needs=dict(channel.needs),
                from_at=deployment.from_at,
            )
        )
    session.flush()


def _sensor(
    session: Session, slot: catalogue.Slot, serial: str, *, from_at: datetime, now: datetime
) -> Sensor:
    _refuse_serial(serial)
    known = session.scalar(select(Sensor).where(Sensor.serial == serial))
    if known is not None:
        _refuse_wrong_or_mounted(session, known, slot, from_at)
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
                status=CalibrationStatus.APPROVED,
                kind=CalibrationKind.FACTORY,
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
                author=sensor_type.manufacturer,
                reference=sensor_type.source,
                created_at=now,
            )
        )
    session.flush()
    return sensor


def _refuse_serial(serial: str) -> None:
    if (
        not 1 <= len(serial) <= _LONGEST_SERIAL
        or not serial.isprintable()
        or serial != serial.strip()
    ):
        raise SerialWrong(
            "A serial number has 1 to %(longest)s printable characters.", longest=_LONGEST_SERIAL
        )


def _refuse_wrong_or_mounted(
    session: Session, sensor: Sensor, slot: catalogue.Slot, from_at: datetime
) -> None:
    if sensor.sensor_type != slot.sensor_type:
        raise Conflict(
            "Sensor %(serial)s is a %(sensor_type)s, not a %(wanted_type)s.",
            serial=sensor.serial,
            sensor_type=sensor.sensor_type,
            wanted_type=slot.sensor_type,
        )
    mounted = select(Channel.id).where(Channel.sensor_id == sensor.id, Channel.to_at.is_(None))
    if session.scalar(mounted.limit(1)) is not None:
        raise Conflict("Sensor %(serial)s is mounted at another node.", serial=sensor.serial)
    until = session.scalar(select(func.max(Channel.to_at)).where(Channel.sensor_id == sensor.id))
    if until is not None and until > from_at:
        raise Conflict(
            "Sensor %(serial)s was mounted until %(until)s; begin then or later.",
            serial=sensor.serial,
            until=until,
        )


def _datastream(
    session: Session, site_id: int, channel: catalogue.Channel, depth_cm: int, *, now: datetime
) -> Datastream:
    known = session.scalar(
        select(Datastream).where(
            Datastream.site_id == site_id,
            Datastream.property == channel.property,
            Datastream.depth_cm == depth_cm,
            Datastream.level == LEVEL_CALIBRATED,
        )
    )
    if known is not None:
        return known
    datastream = Datastream(
        site_id=site_id,
        property=channel.property,
        unit=channel.unit,
        depth_cm=depth_cm,
        level=LEVEL_CALIBRATED,
        created_at=now,
    )
    session.add(datastream)
    session.flush()
    return datastream
