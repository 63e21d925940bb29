"""The fleet calls for help once, with the cause, and says by itself when it is over. The clock is moved, nobody waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from corrections import calibrate, measured
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import Engine, event, insert, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from fleet_server.models import (
    Alert,
    AlertKind,
    AuditEntry,
    Delivery,
    Deployment,
    Node,
    NodeDay,
    NodeStatus,
    NodeTrend,
    Role,
    Scope,
    Severity,
    Site,
)
from fleet_server.models.alert import Channel
from fleet_server.services import (
    accounts,
    alert_rules,
    alert_words,
    alert_work,
    alerting,
    grouping,
    revising,
    rights,
    scheduling,
    silencing,
    telling,
    trends,
)
from fleet_server.services.alert_rules import DEFAULTS, Rule, RuleWrong
from fleet_server.services.alerting import Look, Wanted
from fleet_server.services.ingest import store_batch
from fleet_server.services.rights import Actor
from fleet_server.services.selecting import Selection
from fleet_server.services.silencing import SilenceWrong
from fleet_server.services.telling import NewRecipient, RecipientExists
from fleet_server.wire.states import NodeState

pytestmark = pytest.mark.postgresql_at_night

HOUR = timedelta(hours=1)


def make_fleet(
    session: Session,
    count: int,
    *,
    first: int = 1,
    site: int = 1,
    heard: Sequence[datetime] | None = None,
    **status: Any,
) -> list[str]:
    """Deployed nodes at one site, by the rows that a look is about; by default all were heard at noon."""
    ids = [f"n-{number:06x}" for number in range(first, first + count)]
    with db.writing(session):
        if session.get(Site, site) is None:
            session.add(Site(id=site, code=f"s{site}", name=f"Site {site}", kind="tree", latitude=51.4 + site / 50, longitude=7.2, description="", is_public=False, created_at=NOON))  # fmt: skip
            session.flush()
        nodes = [
            {"node_id": one, "label": one, "model": "tree-3", "state": NodeState.DEPLOYED}
            for one in ids
        ]
        moments = heard or [NOON] * count
        statuses = [
            {"node_id": one, "publish_s": 3600, "last_heard_at": at, **status}
            for one, at in zip(ids, moments, strict=True)
        ]
        session.execute(insert(Node), nodes)
        session.execute(insert(NodeStatus), statuses)
        session.execute(
            insert(Deployment),
            [{"node_id": one, "site_id": site, "from_at": NOON - 30 * 24 * HOUR} for one in ids],
        )
    return ids


def say(session: Session, node_ids: Sequence[str], **status: Any) -> None:
    with db.writing(session):
        session.execute(update(NodeStatus).where(NodeStatus.node_id.in_(node_ids)).values(**status))


def look(session: Session, after: timedelta, *, is_quick: bool = False) -> Look:
    return alerting.look(session, now=NOON + after, wall_now=NOON + after, is_quick=is_quick)


def open_alerts(session: Session) -> list[tuple[str, str]]:
    found = alerting.alerts(session, Wanted(), limit=1000)
    return sorted((one.kind, one.subject) for one in found)


def test_node_that_falls_silent_is_late_then_offline_then_over(session: Session) -> None:
    quiet, *others = make_fleet(session, 4)
    say(session, others, last_heard_at=NOON + 4 * HOUR)
    assert look(session, 1.5 * HOUR) == Look()
    assert look(session, 2 * HOUR) == Look(opened=1)
    assert look(session, 2 * HOUR) == Look()  # however often it is seen
    assert open_alerts(session) == [("late", f"node {quiet}")]
    assert look(session, 3.5 * HOUR) == Look(opened=1, closed=1)
    assert open_alerts(session) == [("offline", f"node {quiet}")]
    say(session, [quiet], last_heard_at=NOON + 3.6 * HOUR)
    assert look(session, 3.7 * HOUR) == Look(closed=1)
    assert open_alerts(session) == []
    alert = session.scalars(select(Alert).where(Alert.kind == "offline")).one()
    assert alert.details == {"last_heard_at": "2026-07-01T12:00:00Z"}


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("state", [state for state in NodeState if state is not NodeState.DEPLOYED])
def test_who_is_not_at_its_site_in_service_does_not_call(
    session: Session, state: NodeState
) -> None:
    (quiet,) = make_fleet(session, 1)
    look(session, 2 * HOUR)
    with db.writing(session):
        session.execute(update(Node).where(Node.node_id == quiet).values(state=state))
    assert look(session, 2.1 * HOUR) == Look(closed=1)
    assert look(session, 9 * HOUR) == Look()


def test_broker_that_is_down_is_one_alert_and_holds_back_the_others(session: Session) -> None:
    """A hundred nodes that publish once an hour, each at its own minute; nobody is heard from noon on."""
    heard = [NOON - HOUR * n / 100 for n in range(100)]
    ids = make_fleet(session, 50, heard=heard[:50]) + make_fleet(session, 50, first=100, site=5, heard=heard[50:])  # fmt: skip
    minutes = timedelta(minutes=1)
    for minute in range(0, 300, 10):
        look(session, minute * minutes, is_quick=True)
    assert open_alerts(session) == [("fleet_silent", "fleet")]
    opened = session.scalars(select(Alert)).one()
    assert opened.opened_at <= NOON + 20 * minutes  # long before the first node is late
    assert (opened.severity, opened.details["nodes"]) == ("urgent", 100)
    assert opened.escalated_at is not None
    # It is back: the nodes come as they wake, and the one that never does is told about when all had time.
    for minute in range(300, 600, 10):
        back = [ids[n] for n in range(1, 100) if n * 0.6 <= minute - 300]
        say(session, back, last_heard_at=NOON + minute * minutes)
        look(session, minute * minutes, is_quick=True)
        if minute < 420:
            assert not [one for one in open_alerts(session) if one[0] != "fleet_silent"], minute
    assert open_alerts(session) == [("offline", f"node {ids[0]}")]


def test_two_nodes_that_are_late_are_no_outage(session: Session) -> None:
    ids = make_fleet(session, 12)
    say(session, ids[2:], last_heard_at=NOON + 1.9 * HOUR)
    look(session, 2 * HOUR)
    assert open_alerts(session) == [("late", f"node {ids[0]}"), ("late", f"node {ids[1]}")]


def test_one_node_alone_is_never_a_silent_fleet(session: Session) -> None:
    make_fleet(session, 1)
    look(session, 5 * HOUR)
    assert [kind for kind, _ in open_alerts(session)] == ["offline"]


def test_place_whose_nodes_fall_silent_together_is_one_alert(session: Session) -> None:
    park = make_fleet(session, 5, heard=[NOON + n * timedelta(minutes=9) for n in range(5)])
    town = make_fleet(session, 20, first=100, site=7)
    for quarter in range(24):
        say(session, town, last_heard_at=NOON + quarter * HOUR / 4)
        look(session, quarter * HOUR / 4, is_quick=True)
    assert [kind for kind, _ in open_alerts(session)] == ["place_silent"]
    alert = session.scalars(select(Alert).where(Alert.kind == "place_silent")).one()
    assert (alert.details["nodes"], alert.details["near"]) == (5, "Site 1")
    assert alert.subject == "place 5142/720"
    assert not session.scalars(select(Alert).where(Alert.kind == "offline")).all()
    # All but one come back. That one is told about when the others had their time.
    say(session, park[1:] + town, last_heard_at=NOON + 6 * HOUR)
    look(session, 6.1 * HOUR)
    assert look(session, 6.4 * HOUR).closed == 1
    assert open_alerts(session) == []
    say(session, park[1:] + town, last_heard_at=NOON + 9 * HOUR)
    look(session, 9 * HOUR)
    assert open_alerts(session) == [("offline", f"node {park[0]}")]


def test_nodes_of_one_network_far_apart_are_one_alert(session: Session) -> None:
    for site in range(1, 5):
        make_fleet(session, 1, first=site, site=site, network="Stadtwerke")
    others = make_fleet(session, 9, first=100, site=9)
    say(session, others, last_heard_at=NOON + 2 * HOUR)
    look(session, 2 * HOUR)
    assert open_alerts(session) == [("place_silent", "network Stadtwerke")]


def trend(session: Session, node_id: str, **fields: Any) -> None:
    with db.writing(session):
        session.merge(NodeTrend(node_id=node_id, made_at=NOON, **fields))


def day(session: Session, node_id: str, ago: int, **fields: Any) -> None:
    row = {"power_ups": 0, **fields}
    with db.writing(session):
        session.merge(NodeDay(node_id=node_id, day=trends.day_of(NOON) - ago, **row))


def _spool(session: Session, node: str, depth: int) -> None:
    say(session, [node], spool_depth=depth)
    for ago in (1, 2):
        day(session, node, ago, spool_depth=depth - 50 * ago)


def _certificate(session: Session, node: str, days: int) -> None:
    with db.writing(session):
        expires = NOON + timedelta(days=days)
        session.execute(update(Node).where(Node.node_id == node).values(certificate_expires_at=expires))  # fmt: skip


_KINDS = {
    "battery": (
        lambda session, node, days: trend(session, node, battery_days_low=days, battery_days_high=60),
        (31, 29, 40, 46),
    ),
    "clock_drift": (
        lambda session, node, ppm: say(session, [node], drift_ppm=-float(ppm)),
        (5000, 5100, 4500, 3900),
    ),
    "spool_growing": (_spool, (199, 210, 120, 60)),
    "reboot_loop": (
        lambda session, node, count: day(session, node, 0, power_ups=count),
        (4, 5, 2, 1),
    ),
    "certificate": (_certificate, (61, 59, 60, 62)),
    "radio": (
        lambda session, node, drop: trend(session, node, rssi_before_dbm=-76, rssi_now_dbm=-76 - drop),
        (7, 9, 6, 4),
    ),
}  # fmt: skip


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("kind", _KINDS)
def test_figure_opens_an_alert_and_ends_it_with_hysteresis(session: Session, kind: str) -> None:
    """Below the threshold, above it, between that and where it ends, and beyond that for long enough."""
    put, (well, bad, between, over) = _KINDS[kind]
    node, *_ = make_fleet(session, 2)
    expected = [(kind, f"node {node}")]
    put(session, node, well)
    look(session, HOUR)
    assert open_alerts(session) == []
    put(session, node, bad)
    look(session, HOUR)
    assert open_alerts(session) == expected
    put(session, node, between)
    look(session, HOUR)
    assert open_alerts(session) == expected
    put(session, node, over)
    clear_after = timedelta(seconds=DEFAULTS[AlertKind(kind)].clear_after_s)
    say(session, [node], last_heard_at=NOON + 2 * HOUR + clear_after)
    if clear_after:
        look(session, HOUR)
        assert open_alerts(session) == expected
        put(session, node, bad)  # not over after all: it begins anew to be over
        look(session, HOUR + clear_after / 2)
        put(session, node, over)
        look(session, HOUR + clear_after)
        assert expected[0] in open_alerts(session)
    look(session, HOUR + 2 * clear_after)
    assert expected[0] not in open_alerts(session)


def test_probe_that_gives_nothing_four_times_calls_and_one_reading_ends_it(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    broken = {**node.readings, "t30": "absent"}
    for readings, expected in ((broken, []), (broken, []), (broken, []), (broken, ["sensor"])):
        pack = node.pack(readings=readings)
        now = NOON + timedelta(seconds=900 * (node.next_seq - 1))
        store_batch(session, [pack], now=now)
        look(session, now - NOON)
        assert [kind for kind, _ in open_alerts(session)] == expected
    alert = session.scalars(select(Alert)).one()
    assert alert.details == {"channel": "t30"}
    store_batch(session, [node.pack()], now=NOON + HOUR)
    look(session, HOUR)
    look(session, 2 * HOUR)
    assert open_alerts(session) == []


def test_alert_that_nobody_takes_up_becomes_more_urgent_once_and_one_that_was_taken_up_does_not(
    session: Session,
) -> None:
    ids = make_fleet(session, 6)
    say(session, ids[2:], last_heard_at=NOON + 200 * HOUR)
    look(session, 4 * HOUR)
    first, second = alerting.alerts(session, Wanted(), limit=9)
    rights.act_as(session, Actor("anna", rights.rights_of([Role.OPERATOR])))
    alerting.acknowledge(session, first.id, note="on my way", now=NOON + 5 * HOUR)
    assert look(session, 77 * HOUR) == Look(escalated=1)
    assert look(session, 78 * HOUR) == Look()
    (escalated,) = alerting.alerts(session, Wanted(severities=[Severity.URGENT]), limit=9)
    assert escalated.id == second.id
    (taken,) = alerting.alerts(session, Wanted(is_acknowledged=True), limit=9)
    assert (taken.acknowledged_by, taken.note) == ("anna", "on my way")
    entry = session.scalars(select(AuditEntry).order_by(AuditEntry.seq.desc())).first()
    assert entry is not None
    assert (entry.actor, entry.action, entry.details["alert"]) == ("anna", "alert_acknowledged", first.id)  # fmt: skip


def test_acknowledging_is_refused_out_of_scope_when_over_and_with_an_endless_note(
    session: Session,
) -> None:
    quiet, *others = make_fleet(session, 4)
    say(session, others, last_heard_at=NOON + 9 * HOUR)
    look(session, 2 * HOUR)
    (alert,) = alerting.alerts(session, Wanted(), limit=9)
    rights.act_as(session, Actor("wanda", rights.rights_of([Role.OPERATOR]), Scope.WATERS))
    assert alerting.alerts(session, Wanted(), limit=9) == []
    with pytest.raises(NotFound):
        alerting.acknowledge(session, alert.id, note="", now=NOON)
    rights.act_as(session, rights.MACHINE)
    with pytest.raises(Invalid):
        alerting.acknowledge(session, alert.id, note="x" * 501, now=NOON)
    say(session, [quiet], last_heard_at=NOON + 3 * HOUR)
    look(session, 3 * HOUR)
    with pytest.raises(Conflict, match="is over since"):
        alerting.acknowledge(session, alert.id, note="", now=NOON)


@pytest.mark.parametrize(
    ("scope", "key"),
    [("node", "n-000001"), ("site", "s1"), ("group", "park"), ("model", "tree-3"), ("all", "")],
)
def test_maintenance_window_silences_from_its_begin_to_its_end(
    session: Session, scope: str, key: str
) -> None:
    quiet, *others = make_fleet(session, 1) + make_fleet(session, 3, first=9, site=4)
    say(session, others, last_heard_at=NOON + 99 * HOUR)
    group = grouping.create_group(session, "lime trees", now=NOON)
    grouping.add_members(session, group.id, Selection(node_ids=(quiet,)), now=NOON)
    if scope == "group":
        silencing.silence(session, scope=scope, key="lime trees", from_at=NOON + HOUR, to_at=NOON + 5 * HOUR, reason="pruning", now=NOON)  # fmt: skip
    grouping.change_group(session, group.id, name="park", now=NOON)  # the window goes along
    if scope != "group":
        silencing.silence(session, scope=scope, key=key, from_at=NOON + HOUR, to_at=NOON + 5 * HOUR, reason="pruning", now=NOON)  # fmt: skip
    look(session, 4.9 * HOUR)
    assert open_alerts(session) == []
    look(session, 5 * HOUR)
    assert open_alerts(session) == [("offline", f"node {quiet}")]


def test_maintenance_window_can_be_ended_and_is_refused_where_it_makes_no_sense(
    session: Session,
) -> None:
    make_fleet(session, 1)
    good = {"scope": "node", "key": "n-000001", "from_at": NOON, "to_at": NOON + HOUR, "reason": "r", "now": NOON}  # fmt: skip
    wrong: list[tuple[dict[str, object], type[Exception]]] = [
        ({"scope": "town"}, SilenceWrong),
        ({"to_at": NOON}, SilenceWrong),
        ({"to_at": NOON + timedelta(days=91)}, SilenceWrong),
        ({"reason": " "}, SilenceWrong),
        ({"key": "n-ffffff"}, NotFound),
        ({"scope": "site"}, NotFound),
        ({"scope": "model"}, NotFound),
    ]
    for change, kind in wrong:
        with pytest.raises(kind):
            silencing.silence(session, **(good | change))  # type: ignore[arg-type] # wrong on purpose
    made = silencing.silence(session, **good)  # type: ignore[arg-type] # a dict of the right types
    assert silencing.silences(session, now=NOON) == [made]
    silencing.end_silence(session, made.id, now=NOON + HOUR / 2)
    assert silencing.silences(session, now=NOON + HOUR / 2) == []
    rights.act_as(session, Actor("wanda", rights.rights_of([Role.OPERATOR]), Scope.WATERS))
    with pytest.raises(Refused):
        silencing.silence(session, **(good | {"scope": "all"}))  # type: ignore[arg-type] # as above


def test_rule_is_data_that_operators_change_and_the_log_keeps(session: Session) -> None:
    node, *_ = make_fleet(session, 2)
    trend(session, node, battery_days_low=50, battery_days_high=60)
    look(session, HOUR)
    assert open_alerts(session) == []
    rule = Rule(Severity.URGENT, {"days": 60, "clear_days": 70})
    alert_rules.change_rule(session, AlertKind.BATTERY, rule, now=NOON)
    look(session, HOUR)
    (alert,) = alerting.alerts(session, Wanted(), limit=9)
    assert (alert.kind, alert.severity) == ("battery", "urgent")
    assert alert.details == {"days_low": 50, "days_high": 60, "battery_mv": None}
    off = Rule(Severity.URGENT, rule.thresholds, is_active=False)
    alert_rules.change_rule(session, AlertKind.BATTERY, off, now=NOON)
    alert_rules.change_rule(session, AlertKind.BATTERY, off, now=NOON)
    entries = session.scalars(
        select(AuditEntry).where(AuditEntry.action == "alert_rule_changed").order_by(AuditEntry.seq)
    )
    assert [entry.details["after"]["is_active"] for entry in entries] == [True, False]
    for wrong in ({"months": 1}, {"days": -1}, {"days": 10**9}):
        with pytest.raises(RuleWrong):
            alert_rules.change_rule(session, AlertKind.BATTERY, Rule(Severity.NOTICE, wrong), now=NOON)  # fmt: skip


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(*given: Any) -> None:
        if not given[2].startswith(("BEGIN", "PRAGMA", "SAVEPOINT", "RELEASE")):
            statements.append(given[2])

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.also_on_postgresql
def test_look_takes_as_many_statements_for_a_thousand_nodes_as_for_ten(
    engine: Engine, session: Session
) -> None:
    counts = []
    for site, late in ((5, 10), (9, 400)):
        make_fleet(session, late, first=1000 * site, site=site)
        others = make_fleet(session, 3 * late, first=1000 * site + late, site=site)
        say(session, others, last_heard_at=NOON + 9 * HOUR)
        with counted(engine) as statements:
            assert look(session, 2 * HOUR).opened == late
        counts.append(len(statements))
    assert counts[0] == counts[1] < 40


@pytest.mark.also_on_postgresql
def test_look_writes_what_changed_and_looks_at_nodes_before_that(
    engine: Engine, session: Session
) -> None:
    """On SQLite readings wait for whoever writes: a hundred thousand nodes are judged while nobody has to."""
    make_fleet(session, 40)
    kept: list[str] = []
    with counted(engine) as statements:
        event.listen(engine, "begin", lambda _: kept.clear() or statements.clear())
        look(session, 2 * HOUR)
        kept += statements
    assert any("INSERT INTO alert" in one for one in kept)
    assert [one for one in kept if "node_status" in one] == []


def test_maintenance_of_a_place_or_of_all_is_no_outage(session: Session) -> None:
    park = make_fleet(session, 4)
    town = make_fleet(session, 8, first=100, site=7)
    window = {"from_at": NOON, "to_at": NOON + 30 * HOUR, "reason": "new access point", "now": NOON}
    silencing.silence(session, scope="site", key="s1", **window)  # type: ignore[arg-type] # a dict of the right types
    say(session, town, last_heard_at=NOON + 3 * HOUR)
    look(session, 4 * HOUR)
    assert open_alerts(session) == []
    silencing.silence(session, scope="all", key="", **window)  # type: ignore[arg-type] # as above
    look(session, 9 * HOUR)
    assert open_alerts(session) == []
    assert look(session, 31 * HOUR).opened == 1
    assert open_alerts(session) == [("fleet_silent", "fleet")]
    assert park


def _office(session: Session, name: str, **wishes: Any) -> int:
    new = NewRecipient(name, Channel.MAIL, wishes.pop("address", f"{name}@example.org"), **wishes)
    return telling.add_recipient(session, new, now=NOON, secret_key=lambda: "k" * 32)[0].id


def told(session: Session, recipient_id: int) -> list[tuple[str, list[str]]]:
    rows = session.scalars(
        select(Delivery).where(Delivery.recipient_id == recipient_id).order_by(Delivery.id)
    )
    return [
        (one.occasion, [str(line.get("subject", line)) for line in one.content]) for one in rows
    ]


def test_place_that_takes_alerts_in_tells_nobody_that_they_are_over(session: Session) -> None:
    office = _office(session, "office", min_severity=Severity.NOTICE)
    park = make_fleet(session, 5, heard=[NOON, *[NOON + 2 * HOUR] * 4])
    town = make_fleet(session, 20, first=100, site=7)
    say(session, town, last_heard_at=NOON + 5 * HOUR)
    look(session, 2 * HOUR)
    look(session, 3.2 * HOUR)  # late became offline: it is not over
    look(session, 5 * HOUR)
    assert told(session, office) == [
        ("opened", [f"node {park[0]}"]),
        ("opened", [f"node {park[0]}"]),
        ("opened", ["place 5142/720"]),
    ]


def test_who_looks_after_ponds_hears_of_the_one_among_many_trees_and_of_no_tree(
    session: Session,
) -> None:
    trees, ponds = _office(session, "trees", site_kind="tree"), _office(session, "ponds", site_kind="water")  # fmt: skip
    nodes = make_fleet(session, telling.TOLD_AT_MOST + 5)
    others = make_fleet(session, 400, first=5000, site=9)
    with db.writing(session):
        session.execute(update(Node).where(Node.node_id == nodes[0]).values(model="pond-1"))
        expires = {"certificate_expires_at": NOON + 9 * 24 * HOUR}
        session.execute(update(Node).where(Node.node_id.in_(nodes)).values(**expires))
    say(session, others, last_heard_at=NOON + HOUR)
    look(session, HOUR)
    assert told(session, ponds) == [("opened", [f"node {nodes[0]}"])]
    ((_, subjects),) = told(session, trees)
    assert len(subjects) == telling.TOLD_AT_MOST + 1
    assert subjects[-1] == "{'more': 4}"
    assert f"node {nodes[0]}" not in subjects


def test_silent_place_of_trees_is_no_business_of_who_looks_after_waters(session: Session) -> None:
    ponds, trees = _office(session, "ponds", site_kind="water"), _office(session, "trees", site_kind="tree")  # fmt: skip
    make_fleet(session, 5)
    town = make_fleet(session, 20, first=100, site=7)
    say(session, town, last_heard_at=NOON + 2 * HOUR)
    look(session, 2 * HOUR)
    assert told(session, ponds) == []
    assert told(session, trees) == [("opened", ["place 5142/720"])]
    (alert,) = alerting.alerts(session, Wanted(), limit=9)
    rights.act_as(session, Actor("wanda", rights.rights_of([Role.OPERATOR]), Scope.WATERS))
    assert alerting.alerts(session, Wanted(), limit=9) == []
    with pytest.raises(NotFound):
        alerting.acknowledge(session, alert.id, note="", now=NOON)


def test_account_is_told_of_its_own_scope_while_it_is_open(session: Session) -> None:
    (node,) = make_fleet(session, 1)
    accounts.create_user(session, "ada", None, now=NOON, roles=[Role.ADMINISTRATOR])
    ids = {}
    for name, scope in (("tom", Scope.TREES), ("wanda", Scope.WATERS)):
        user = accounts.create_user(session, name, None, now=NOON, roles=[Role.OPERATOR], scope=scope)  # fmt: skip
        with db.writing(session):
            user.mail = f"{name}@example.org"
        ids[name] = _office(session, name, address="", account=name)
    with pytest.raises(RecipientExists):
        _office(session, "again", address="", account="tom")
    with pytest.raises(NotFound):
        _office(session, "nobody", address="", account="nobody")
    look(session, 9 * HOUR)
    assert told(session, ids["wanda"]) == []
    assert told(session, ids["tom"]) == [("opened", [f"node {node}"])]
    (due,) = telling.claim_due(session, wall_now=NOON + 9 * HOUR)
    assert due.address == "tom@example.org"
    accounts.set_active(session, "tom", is_active=False, now=NOON)
    (due,) = telling.claim_due(session, wall_now=NOON + 10 * HOUR)
    assert due.address is None
    look(session, 10 * HOUR)
    say(session, [node], last_heard_at=NOON + 10 * HOUR)
    look(session, 10 * HOUR)
    assert len(told(session, ids["tom"])) == 1


def test_who_has_to_do_with_waters_lets_nobody_be_told_of_trees_and_changes_no_rule(
    session: Session,
) -> None:
    of_all = _office(session, "all")
    rights.act_as(session, Actor("wanda", rights.rights_of([Role.OPERATOR]), Scope.WATERS))
    for kind in (None, "tree"):
        with pytest.raises(rights.NotAllowed):
            _office(session, "spy", site_kind=kind)
    own = _office(session, "ponds", site_kind="water")
    assert [one.id for one in telling.recipients(session)] == [own]
    with pytest.raises(NotFound):
        telling.set_recipient_active(session, of_all, is_active=False, now=NOON)
    with pytest.raises(Refused):
        alert_rules.change_rule(session, AlertKind.LATE, Rule(Severity.URGENT), now=NOON)


def test_job_that_fails_or_stays_out_calls_and_one_that_a_dead_worker_left_does_not(
    session: Session,
) -> None:
    def ran(name: str, at: timedelta, error: str | None = None) -> None:
        scheduling.note_run(session, name, every_s=3600, wall_now=NOON + at, error=error)

    scheduling.add_jobs(session, ["look_quickly", "revocation_lists"], wall_now=NOON)
    for after in (0 * HOUR, HOUR):
        ran("look_quickly", after)
        ran("revocation_lists", after, "the key is locked")
        look(session, after)
    assert open_alerts(session) == [("job", "job revocation_lists")]
    (alert,) = alerting.alerts(session, Wanted(), limit=9)
    assert (alert.details["trouble"], alert.details["reason"]) == ("fails", "the key is locked")
    ran("revocation_lists", 2 * HOUR)
    look(session, 2 * HOUR)
    assert open_alerts(session) == []
    ran("look_quickly", 2.5 * HOUR)  # and then the worker was away for a day
    look(session, 26 * HOUR)
    assert open_alerts(session) == []
    ran("look_quickly", 26 * HOUR)
    look(session, 26.1 * HOUR)
    assert open_alerts(session) == [("job", "job revocation_lists")]


def test_correction_that_is_held_up_calls_by_its_number_and_its_reason(session: Session) -> None:
    measured(session, 1)
    number = calibrate(session, "t30", offset=-1.5, now=NOON)

    def no_room() -> str:
        raise Unavailable("There is no room for the backup.")

    scheduling.add_jobs(session, ["look_quickly", "revisions"], wall_now=NOON)
    for after in (0 * HOUR, HOUR):
        with pytest.raises(Unavailable) as problem:
            revising.advance(session, now=NOON + after, make_backup=no_room)
        for name, error in (("look_quickly", None), ("revisions", str(problem.value))):
            scheduling.note_run(session, name, every_s=5, wall_now=NOON + after, error=error)
    look(session, HOUR)
    (alert,) = alerting.alerts(session, Wanted(), limit=9)
    said = alert_words.sentence(AlertKind.JOB, alert.details, "en")
    assert said.startswith(f"Revision {number} is held up")
    assert "There is no room for the backup." in said
    assert f"/fleet/revisions/{number}" in alert_words.sentence(AlertKind.JOB, alert.details, "de")
    while revising.advance(session, now=NOON + HOUR):
        pass
    scheduling.note_run(session, "revisions", every_s=5, wall_now=NOON + HOUR, error=None)
    look(session, 1.1 * HOUR)
    assert open_alerts(session) == []


def test_backup_that_stays_out_or_fails_calls_and_one_that_was_made_ends_it(
    session: Session,
) -> None:
    scheduling.add_jobs(session, [scheduling.BACKUP], wall_now=NOON)
    look(session, 47 * HOUR)
    assert open_alerts(session) == []
    look(session, 48 * HOUR)
    assert open_alerts(session) == [("job", "job backup")]
    scheduling.note_backup(session, wall_now=NOON + 49 * HOUR, error=None)
    look(session, 49 * HOUR)
    assert open_alerts(session) == []
    scheduling.note_backup(session, wall_now=NOON + 73 * HOUR, error="The disk is full.")
    look(session, 74 * HOUR)
    (alert,) = alerting.alerts(session, Wanted(), limit=9)
    assert alert.details["reason"] == "The disk is full."


def test_work_is_ordered_once_of_an_alert_that_somebody_goes_there_for(session: Session) -> None:
    quiet, *others = make_fleet(session, 3)
    say(session, others, last_heard_at=NOON + 99 * HOUR)
    with db.writing(session):
        expires = {"certificate_expires_at": NOON + 9 * 24 * HOUR}
        session.execute(update(Node).where(Node.node_id == others[0]).values(**expires))
    look(session, 9 * HOUR)
    by_kind = {one.kind: one for one in alerting.alerts(session, Wanted(), limit=9)}
    order = alert_work.order_for_alert(session, by_kind[AlertKind.OFFLINE].id, now=NOON)
    assert (order.kind, order.node_id, order.due_at) == ("look", quiet, NOON + 7 * 24 * HOUR)
    again = alert_work.order_for_alert(session, by_kind[AlertKind.OFFLINE].id, now=NOON)
    assert again.id == order.id
    (shown,) = alerting.alerts(session, Wanted(kinds=[AlertKind.OFFLINE]), limit=9)
    assert shown.work_order_id == order.id
    with pytest.raises(alert_work.NoWorkThere):
        alert_work.order_for_alert(session, by_kind[AlertKind.CERTIFICATE].id, now=NOON)


@pytest.mark.parametrize(
    ("subject", "page"),
    [
        ("node n-000001", "/fleet/nodes/n-000001"),
        ("campaign 7", "/fleet/campaigns/7"),
        ("role tree-3", "/fleet/releases#roles"),
        ("network Stadtwerke", None),
        ("job backup", None),
    ],
)
def test_an_alert_leads_to_the_page_where_somebody_decides(subject: str, page: str | None) -> None:
    assert alert_words.page_of(subject) == page
