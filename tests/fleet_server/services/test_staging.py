"""Whatever people do to a change, in whatever order nodes are heard and the clock goes on: nobody is told what is not wanted of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import FleetError
from fleet_server.models import ChangeState, Configuration, ConfigurationChange
from fleet_server.services import changing, configuring, grouping, layering, rights, staging
from fleet_server.services.changing import Plan
from fleet_server.services.layering import FLEET, model_layer
from fleet_server.services.selecting import Selection
from fleet_server.wire.states import ConfigState
from tests.fleet_server.services.fleet_of_nodes import connect, register, told

NODES = 6
SOAK = timedelta(hours=1)
PLAN = Plan(canaries=1, shares=(0.5, 1.0), soak=SOAK)
DEEDS: dict[str, Callable[..., Any]] = {
    "approve": changing.approve_change,
    "pause": changing.pause_change,
    "resume": changing.resume_change,
    "abort": changing.abort_change,
    "roll back": changing.roll_back_change,
}
# In these, a change tells nobody anything, whatever time it is.
STANDS_STILL = (
    ChangeState.AWAITING_APPROVAL,
    ChangeState.PAUSED,
    ChangeState.COMPLETED,
    ChangeState.ABORTED,
    ChangeState.ROLLED_BACK,
)


class Waves(RuleBasedStateMachine):
    sessions: sessionmaker[Session]
    make: Callable[[], sessionmaker[Session]]

    def __init__(self) -> None:
        super().__init__()
        self.session = type(self).make()()
        self.ids = register(self.session, NODES)
        self.group = grouping.create_group(self.session, "east", now=NOON).id
        self.now = NOON
        self.versions = dict.fromkeys(self.ids, 1)

    def attempt(self, deed: Callable[[], object]) -> None:
        """What a person may ask for at any time; a refusal changes nothing."""
        before = self.everything()
        try:
            deed()
        except FleetError:
            assert self.everything() == before

    def everything(self) -> tuple[Any, ...]:
        changes = self.session.execute(
            select(ConfigurationChange.id, ConfigurationChange.state, ConfigurationChange.wave)
        ).all()
        return told(self.session, self.ids), changes, layering.layers(self.session)

    @rule(
        layer=st.sampled_from([FLEET, model_layer("tree-3"), None]),
        sample_s=st.sampled_from([300, 600, 7200, None]),
        needs_approval=st.booleans(),
        author=st.sampled_from(["anna", "bert"]),
    )
    def propose(self, layer: Any, sample_s: Any, needs_approval: bool, author: str) -> None:
        self.act_as(author)
        wanted = layer or layering.find_layer(self.session, "group", "east")
        self.attempt(
            lambda: changing.propose_change(
                self.session,
                wanted,
                {"sample_s": sample_s},
                now=self.now,
                plan=PLAN,
                approval_above=0 if needs_approval else None,
            )
        )

    @rule(
        deed=st.sampled_from(sorted(DEEDS)),
        back=st.sampled_from([0, 0, 0, 1, 2]),
        who=st.sampled_from(["anna", "bert"]),
    )
    def decide(self, deed: str, back: int, who: str) -> None:
        self.act_as(who)
        change_id = max((one.change.id for one in self.changes()), default=1) - back
        self.attempt(lambda: DEEDS[deed](self.session, change_id, now=self.now))

    @rule(node=st.integers(0, NODES - 1), sample_s=st.sampled_from([120, None]))
    def configure(self, node: int, sample_s: int | None) -> None:
        wish = {"sample_s": sample_s}
        self.attempt(
            lambda: configuring.configure_node(self.session, self.ids[node], wish, now=self.now)
        )

    @rule(node=st.integers(0, NODES - 1), joins=st.booleans())
    def regroup(self, node: int, joins: bool) -> None:
        do = grouping.add_members if joins else grouping.remove_members
        meant = Selection(node_ids=(self.ids[node],))
        do(self.session, self.group, meant, now=self.now)

    @rule(
        first=st.sampled_from([0, 0, 0, *range(1, NODES)]),
        state=st.sampled_from([ConfigState.CONFIRMED] * 3 + list(ConfigState)),
    )
    def hear(self, first: int, state: ConfigState) -> None:
        """From this node on, all."""
        self.now += timedelta(minutes=1)
        connect(self.session, self.ids[first:], self.now, state=state)

    @rule(hours=st.integers(0, 2))
    def work(self, hours: int) -> None:
        self.now += hours * SOAK
        before = {one.change.id: (one.change.state, one.told) for one in self.changes()}
        while staging.advance_all(self.session, now=self.now):
            pass
        for one in self.changes():
            state, count = before[one.change.id]
            if state in STANDS_STILL:
                assert (one.change.state, one.told) == (state, count)

    @invariant()
    def everybody_is_told_what_their_layers_come_to(self) -> None:
        going_back = any(one.change.state == ChangeState.ROLLING_BACK for one in self.changes())
        sweeps = any(one.change.swept_to is not None for one in self.changes())
        for one in layering.resolve(self.session, self.ids):
            assert going_back or sweeps or one.fault or not one.changes, one
            assert one.held_back == one.fault or going_back or sweeps, one

    @invariant()
    def nobody_is_told_before_their_wave(self) -> None:
        for one in self.changes():
            for wave in one.waves:
                assert wave.told == 0 or wave.wave <= one.change.wave
            waits = one.change.state == ChangeState.AWAITING_APPROVAL
            assert not (waits and one.told)

    @invariant()
    def versions_only_rise(self) -> None:
        rows = self.session.execute(select(Configuration.node_id, Configuration.version))
        for node_id, version in rows:
            assert version >= self.versions[node_id]
            self.versions[node_id] = version

    def changes(self) -> list[changing.ChangeOverview]:
        return changing.changes(self.session, limit=100)

    def act_as(self, name: str) -> None:
        rights.act_as(self.session, rights.Actor(name, frozenset(rights.Right)))

    def teardown(self) -> None:
        while staging.advance_all(self.session, now=self.now):
            pass
        self.everybody_is_told_what_their_layers_come_to()
        self.session.close()


def test_waves_hold_for_whatever_happens(sqlite_databases: SqliteDatabases) -> None:
    _run(sqlite_databases, examples=3, steps=25)


@pytest.mark.nightly
def test_waves_hold_for_whatever_happens_in_a_night(sqlite_databases: SqliteDatabases) -> None:
    _run(sqlite_databases, examples=200, steps=40)


def _run(sqlite_databases: SqliteDatabases, *, examples: int, steps: int) -> None:
    opened = []

    def make() -> sessionmaker[Session]:
        context = sqlite_databases.fresh()
        engine = hurried_engine(context.__enter__())
        opened.append((context, engine))
        return db.session_factory(engine)

    machine = type("WavesHere", (Waves,), {"make": staticmethod(make)}).TestCase
    machine.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, phases=[Phase.generate]
    )
    machine("runTest").debug()
    for context, engine in opened:
        engine.dispose()
        context.__exit__(None, None, None)
