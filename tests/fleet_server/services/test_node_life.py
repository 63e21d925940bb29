"""A node's life goes the ways of one table: what it has not is refused with what would be allowed, what it has is in the audit log once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from databases import SqliteDatabases, hurried_engine
from factories import NOON, SimulatedNode, deployed_node, register_node
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import FleetError, NotFound
from fleet_server.models import AuditEntry, Deployment, Node, Role, Scope
from fleet_server.services import (
    authority,
    deploying,
    enrolment,
    node_life,
    registering,
    rights,
)
from fleet_server.services.ingest import store_batch
from fleet_server.services.node_life import WAYS, ReasonWanted, WayClosed
from fleet_server.services.registering import LabelTaken, ListWrong, NewNode
from fleet_server.services.rights import Actor, NotAllowed
from fleet_server.wire.states import NodeState

NODE = "n-000001"
_STANDS = (NodeState.DEPLOYED, NodeState.MAINTENANCE)


def entries(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(AuditEntry)) or 0


def put_into(session: Session, state: NodeState) -> None:
    with db.writing(session):
        session.get_one(Node, NODE).state = state


@pytest.mark.parametrize("before", list(NodeState))
def test_every_change_the_table_has_not_is_refused_and_every_one_it_has_is_audited_once(
    sqlite_databases: SqliteDatabases, before: NodeState
) -> None:
    with sqlite_databases.fresh() as url, db.session_factory(hurried_engine(url))() as session:
        deployed_node(session)
        if before in (NodeState.RETIRED, NodeState.ENROLLED, NodeState.CALIBRATED):
            deploying.end_deployment(session, NODE, to_at=NOON, now=NOON)
        stands = session.scalar(select(Deployment.id).where(Deployment.to_at.is_(None))) is not None
        for wanted in NodeState:
            put_into(session, before)
            count = entries(session)
            way = WAYS[before].get(wanted)
            closed = _STANDS if not stands else (NodeState.ENROLLED, NodeState.CALIBRATED, NodeState.RETIRED)  # fmt: skip
            if way is None or way.comes_by or wanted in closed:
                with pytest.raises(WayClosed) as refused:
                    node_life.change_state(session, NODE, wanted, now=NOON, reason="why not")
                assert str(before) in str(refused.value) or way is not None
                assert str(wanted) in str(refused.value)
                assert refused.value.fields["state"] == before
                assert entries(session) == count
            else:
                node_life.change_state(session, NODE, wanted, now=NOON, reason="because")
                node = session.get_one(Node, NODE)
                assert (node.state, node.state_since, node.state_reason) == (
                    wanted,
                    NOON,
                    "because",
                )
                (entry,) = session.scalars(select(AuditEntry).where(AuditEntry.seq > count))
                assert (entry.action, entry.subject) == (way.action, f"node {NODE}")
                assert entry.details == {"from": before, "to": wanted, "reason": "because"}


class Life(RuleBasedStateMachine):
    """Whatever people and machines do to a node, in whatever order: its state, its site and its log agree."""

    sessions: sessionmaker[Session]
    make: Callable[[], sessionmaker[Session]]

    def __init__(self) -> None:
        super().__init__()
        self.session = type(self).make()()
        register_node(self.session, NODE)
        site = deploying.NewSite("site", "Site", "tree", 51.48, 7.22)
        deploying.create_site(self.session, site, is_public=False, now=NOON)
        put_into(self.session, NodeState.ENROLLING)
        self.now = NOON
        self.moves = 0
        self.first = entries(self.session)

    def _attempt(self, deed: Callable[[], object], *, expected: NodeState | None) -> None:
        """`expected`: the state afterwards; None when it must be refused and change nothing."""
        self.now += timedelta(hours=1)
        before = self.session.get_one(Node, NODE).state
        try:
            deed()
        except FleetError:
            assert expected is None
            assert self.session.get_one(Node, NODE, populate_existing=True).state == before
        else:
            assert self.session.get_one(Node, NODE, populate_existing=True).state == expected
            self.moves += before != expected

    @property
    def _state(self) -> NodeState:
        return NodeState(self.session.get_one(Node, NODE).state)

    @property
    def _stands(self) -> bool:
        open_one = select(Deployment.id).where(Deployment.to_at.is_(None))
        return self.session.scalar(open_one) is not None

    @rule(wanted=st.sampled_from(NodeState))
    def somebody_wants_a_state(self, wanted: NodeState) -> None:
        way = WAYS[self._state].get(wanted)
        needs_site, needs_none = wanted in _STANDS, wanted in (NodeState.ENROLLED, NodeState.CALIBRATED, NodeState.RETIRED)  # fmt: skip
        fits = not (needs_site and not self._stands) and not (needs_none and self._stands)
        is_open = way is not None and way.comes_by is None and fits
        self._attempt(
            lambda: node_life.change_state(self.session, NODE, wanted, now=self.now, reason="r"),
            expected=wanted if is_open else None,
        )

    @rule()
    def it_is_put_at_a_site(self) -> None:
        is_open = NodeState.DEPLOYED in WAYS[self._state] and WAYS[self._state][NodeState.DEPLOYED].comes_by == "putting it at a site"  # fmt: skip
        self._attempt(
            lambda: deploying.deploy_node(
                self.session, NODE, site_code="site", from_at=self.now, now=self.now
            ),
            expected=NodeState.DEPLOYED if is_open and not self._stands else None,
        )

    @rule()
    def it_leaves_its_site(self) -> None:
        state, stands = self._state, self._stands
        expected = NodeState.ENROLLED if stands and state in _STANDS else state
        before, self.moves = self.moves, self.moves
        self._attempt(
            lambda: deploying.end_deployment(self.session, NODE, to_at=self.now, now=self.now),
            expected=expected,
        )
        if stands and self.moves == before:
            self.first += 1  # that it was taken down is told all the same

    @rule()
    def it_is_heard(self) -> None:
        state = self._state
        node = SimulatedNode()
        store_batch(self.session, [node.state()], now=self.now)
        expected = NodeState.ENROLLED if state is NodeState.ENROLLING else state
        self._attempt(
            lambda: node_life.note_first_contacts(self.session, now=self.now),
            expected=expected,
        )

    @invariant()
    def each_change_is_in_the_log_once(self) -> None:
        assert entries(self.session) - self.first == self.moves

    @invariant()
    def who_is_deployed_stands_somewhere(self) -> None:
        if self._state in _STANDS:
            assert self._stands

    def teardown(self) -> None:
        self.session.close()


def test_life_holds_for_whatever_happens(sqlite_databases: SqliteDatabases) -> None:
    opened = []

    def make() -> sessionmaker[Session]:
        context = sqlite_databases.fresh()
        engine = hurried_engine(context.__enter__())
        opened.append((context, engine))
        return db.session_factory(engine)

    machine = type("LifeHere", (Life,), {"make": staticmethod(make)}).TestCase
    machine.settings = settings(
        max_examples=5, stateful_step_count=20, deadline=None, phases=[Phase.generate]
    )
    machine("runTest").debug()
    for context, engine in opened:
        engine.dispose()
        context.__exit__(None, None, None)


def test_who_lacks_the_right_or_the_reason_changes_nothing(session: Session) -> None:
    deployed_node(session)
    technician = Actor("tom", rights.rights_of([Role.TECHNICIAN]))
    rights.act_as(session, technician)
    with pytest.raises(NotAllowed, match="operator"):
        node_life.change_state(session, NODE, NodeState.QUARANTINED, now=NOON, reason="odd")
    with pytest.raises(ReasonWanted):
        node_life.change_state(session, NODE, NodeState.MAINTENANCE, now=NOON, reason="  ")
    with pytest.raises(ReasonWanted):
        node_life.change_state(session, NODE, NodeState.MAINTENANCE, now=NOON, reason="a\nb")
    offered = node_life.ways_of(session, session.get_one(Node, NODE))
    assert set(offered) == {NodeState.MAINTENANCE, NodeState.LOST, NodeState.RMA}
    node_life.change_state(session, NODE, NodeState.MAINTENANCE, now=NOON, reason="new probe")
    rights.act_as(session, Actor("wanda", technician.rights, Scope.WATERS))
    with pytest.raises(NotFound):
        node_life.change_state(session, NODE, NodeState.DEPLOYED, now=NOON)
    entry = session.scalars(select(AuditEntry).order_by(AuditEntry.seq.desc())).first()
    assert entry is not None
    assert (entry.actor, entry.action) == ("tom", "node_maintenance_begun")


def test_first_message_ends_enrolment_by_the_machine(session: Session) -> None:
    register_node(session, NODE)
    put_into(session, NodeState.ENROLLING)
    assert node_life.note_first_contacts(session, now=NOON) == 0
    store_batch(session, [SimulatedNode().state()], now=NOON)
    assert node_life.note_first_contacts(session, now=NOON) == 1
    assert session.get_one(Node, NODE).state == NodeState.ENROLLED
    assert node_life.note_first_contacts(session, now=NOON) == 0


# ---------------------------------------------------------------------------------------------------------- registered


def _request_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "board")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_node_that_was_registered_is_the_one_that_is_enrolled(
    session: Session, tmp_path: Path
) -> None:
    authority.initialise(tmp_path)
    site = deploying.NewSite("linde", "Linde", "tree", 51.48, 7.22)
    deploying.create_site(session, site, is_public=False, now=NOON)
    new = NewNode("tree-07", "tree-3", "linde", {"w30": "A1"})
    planned = registering.register_node(session, new, now=NOON)
    token = enrolment.create_token(session, uses=2, now=NOON)

    def enrol(model: str) -> str:
        return enrolment.enrol_node(
            session,
            token=token,
            label="tree-07",
            model=model,
            csr_pem=_request_pem(),
            ca_dir=tmp_path,
            now=NOON,
        ).node_id

    with pytest.raises(enrolment.EnrolmentWrong, match="registered as tree-3"):
        enrol("tree-2")
    assert enrol("tree-3") == planned.node_id
    node = session.get_one(Node, planned.node_id)
    assert (node.state, node.planned_site_id is None) == (NodeState.ENROLLING, False)
    assert enrol("tree-3") != planned.node_id  # the label alone does not make it the same board
    deployment = deploying.deploy_node(
        session, node.node_id, site_code="linde", from_at=NOON, now=NOON
    )
    assert deployment.node_id == planned.node_id
    entry = session.scalars(select(AuditEntry).order_by(AuditEntry.seq.desc())).first()
    assert entry is not None
    assert entry.details["serials"] == {"w30": "A1"}


def test_list_is_taken_whole_or_not_at_all_and_says_what_is_wrong_with_which_row(
    session: Session,
) -> None:
    good = "\ufefflabel;model;serial_w30\ntree-01;tree-3;A1\ntree-02;tree-3;\n"
    bad = good + "tree-01;tree-3;\ntree-03;tree-99;\n;tree-3;\ntree-04;tree-3;A2\n"
    report = registering.register_list(session, bad, now=NOON)
    assert not report.is_applied
    assert [(row.row, row.fault is None) for row in report.rows] == [
        (2, True),
        (3, True),
        (4, False),
        (5, False),
        (6, False),
        (7, True),
    ]
    assert "tree-99" in str(report.rows[3].fault)
    assert session.scalar(select(func.count()).select_from(Node)) == 0
    assert not registering.register_list(session, good, now=NOON, is_preview=True).is_applied
    assert session.scalar(select(func.count()).select_from(Node)) == 0
    assert registering.register_list(session, good, now=NOON).is_applied
    assert session.scalar(select(func.count()).select_from(Node)) == 2
    with pytest.raises(LabelTaken):
        registering.register_node(session, NewNode("tree-01", "tree-3"), now=NOON)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "label\nx\n",
        "label,model\n",
        "label,model,colour\na,tree-3,red\n",
    ],
)
def test_what_is_no_list_is_one_sentence(session: Session, text: str) -> None:
    with pytest.raises(ListWrong, match=r"\.$"):
        registering.register_list(session, text, now=NOON)
