"""A change of a layer on its way to the nodes: preview, approval, waves, and the way back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import NOON
from sqlalchemy import event, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.models import (
    AuditEntry,
    ChangeState,
    Configuration,
    ConfigurationChange,
    Node,
    Role,
    Scope,
)
from fleet_server.services import (
    bulk,
    changing,
    configuring,
    drifting,
    grouping,
    layering,
    previewing,
    publishing,
    rights,
    staging,
)
from fleet_server.services.changing import (
    AT_ONCE,
    ChangeElsewhere,
    ChangeUnderWay,
    FourEyes,
    LayerChanged,
    Plan,
)
from fleet_server.services.configuring import ConfigurationWrong
from fleet_server.services.layering import FLEET, Layer, model_layer
from fleet_server.services.previewing import Outcome
from fleet_server.services.selecting import Selection
from fleet_server.wire.states import ConfigState
from tests.fleet_server.services.fleet_of_nodes import (
    connect,
    register,
    register_many,
    say,
    statements,
    told,
)

pytestmark = pytest.mark.postgresql_at_night

SOAK = timedelta(hours=1)
THREE_WAVES = Plan(canaries=2, shares=(0.5, 1.0), soak=SOAK)


def key() -> str:
    return "k" * 32


def act_as(session: Session, name: str, *, scope: Scope = Scope.ALL) -> None:
    given = rights.rights_of([Role.OPERATOR])
    rights.act_as(session, rights.Actor(name, given, scope))


def propose(
    session: Session,
    layer: Layer = FLEET,
    *,
    plan: Plan = THREE_WAVES,
    approval_above: int | None = None,
    now: datetime = NOON,
    **settings: Any,
) -> ConfigurationChange:
    change = changing.propose_change(
        session,
        layer,
        settings,
        now=now,
        secret_key=key,
        plan=plan,
        approval_above=approval_above,
    )
    assert change is not None
    return change


def run(session: Session, now: datetime) -> None:
    while staging.advance_all(session, now=now):
        pass


def state(session: Session, change: ConfigurationChange) -> str:
    return changing.change_overview(session, change.id).change.state


def wave_of(session: Session, change: ConfigurationChange, wave: int) -> list[str]:
    nodes = changing.nodes_of(session, change.id, limit=1000)
    return [one.node_id for one in nodes if one.wave == wave]


def test_preview_says_what_becomes_of_each_node_and_changes_nothing(session: Session) -> None:
    changes, has_it, overridden, cannot = register(session, 4)
    configuring.configure_node(session, has_it, {"sample_s": 300}, now=NOON)
    configuring.configure_node(session, overridden, {"sample_s": 600}, now=NOON)
    configuring.configure_node(session, cannot, {"urgent_s": 900, "low_mv": 3300}, now=NOON)
    found = previewing.preview(session, FLEET, {"sample_s": 300})
    assert previewing.summary(found.counts) == {
        "changes": 1,
        "has_it": 1,
        "overridden": 1,
        "cannot": 1,
    }
    outcomes = {one.node_id: one.outcome for one in found.nodes}
    assert outcomes == {
        changes: Outcome.CHANGES,
        has_it: Outcome.HAS_IT,
        overridden: Outcome.OVERRIDDEN,
        cannot: Outcome.CANNOT,
    }
    assert found.reasons == {"urgent_s must be at most sample_s.": 1}
    assert found.nodes[0].node_id == cannot
    assert told(session, [changes]) == [{"sample_s": 900, "publish_s": 3600}]
    assert layering.layers(session) == []


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no setting": ({"colour": 1}, "colour is no setting of a node"),
    "no value": ({"sample_s": 5}, "sample_s must be a whole number from 60"),
    "too long": ({"host": "h" * 253, "server_name": "s" * 253}, "a node keeps 400"),
    "no channel of any node here": ({"limits": [["xy", "below", 4, 5]]}, "no channel xy"),
    "too long together": ({"publish_s": 60}, "publish_s must be at least sample_s."),
    "bad password": ({"wifi": [["stadt", "geheim7"]]}, "wifi: network 1 is not"),
}


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(("settings", "says"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_no_node_could_take_is_refused_before_anything_changes(
    session: Session, settings: dict[str, Any], says: str
) -> None:
    register(session, 2)
    for act in (previewing.preview, lambda *given: changing.propose_change(*given, now=NOON)):
        with pytest.raises(ConfigurationWrong) as refusal:
            act(session, FLEET, settings)
        assert says in str(refusal.value)
        assert "geheim7" not in str(refusal.value)
    assert changing.changes(session) == []


@pytest.mark.also_on_postgresql
def test_waves_open_one_after_the_other_as_nodes_run_it(session: Session) -> None:
    ids = register(session, 10)
    change = propose(session, sample_s=300)
    assert change.waves == [2, 3, 5]
    first, second, third = (wave_of(session, change, wave) for wave in (1, 2, 3))
    assert sorted(first + second + third) == ids
    assert [one["sample_s"] for one in told(session, first + second)] == [300] * 2 + [900] * 3

    run(session, NOON + SOAK)
    assert state(session, change) == ChangeState.RUNNING, "nobody was heard"
    connect(session, first, NOON + SOAK, state=ConfigState.TRIAL)
    run(session, NOON + SOAK)
    assert state(session, change) == ChangeState.RUNNING, "on trial is not in force"
    connect(session, first, NOON + 2 * SOAK)
    run(session, NOON + 2 * SOAK)
    assert state(session, change) == ChangeState.SOAKING
    run(session, NOON + 3 * SOAK - timedelta(seconds=1))
    assert told(session, second)[0]["sample_s"] == 900
    run(session, NOON + 3 * SOAK)
    assert [one["sample_s"] for one in told(session, second + third)] == [300] * 3 + [900] * 5

    connect(session, second, NOON + 4 * SOAK)
    run(session, NOON + 4 * SOAK)
    run(session, NOON + 5 * SOAK)
    assert [one["sample_s"] for one in told(session, ids)] == [300] * 10
    assert state(session, change) == ChangeState.RUNNING
    connect(session, third[:4], NOON + 6 * SOAK)
    run(session, NOON + 6 * SOAK)
    assert state(session, change) == ChangeState.COMPLETED, "who sleeps holds nobody up"
    assert [one.settings for one in layering.layers(session)] == [{"sample_s": 300}]
    actions = session.scalars(select(AuditEntry.action).order_by(AuditEntry.seq)).all()
    assert actions == ["change_proposed", "wave_opened", "wave_opened", "change_completed"]


def test_a_canary_that_rolls_back_pauses_the_change_until_a_person_says_what_to_do(
    session: Session,
) -> None:
    register(session, 10)
    change = propose(session, sample_s=300)
    first, second = wave_of(session, change, 1), wave_of(session, change, 2)
    connect(session, first[:1], NOON + SOAK)
    connect(session, first[1:], NOON + SOAK, state=ConfigState.ROLLED_BACK)
    run(session, NOON + SOAK)
    found = changing.change_overview(session, change.id)
    assert (found.change.state, found.failed) == (ChangeState.PAUSED, 1)
    assert found.change.reason == "1 of the first nodes rolled back or refused"
    run(session, NOON + 9 * SOAK)
    assert told(session, second)[0]["sample_s"] == 900

    changing.resume_change(session, change.id, now=NOON + 9 * SOAK)
    run(session, NOON + 9 * SOAK)
    run(session, NOON + 10 * SOAK)
    assert told(session, second)[0]["sample_s"] == 300, "what a person accepted pauses nothing"


def test_one_in_twenty_may_fail_in_a_later_wave_and_not_more(session: Session) -> None:
    register(session, 42)
    change = propose(session, plan=Plan(1, (1.0,), timedelta(0)), sample_s=300)
    connect(session, wave_of(session, change, 1), NOON + SOAK)
    run(session, NOON + SOAK)
    second = wave_of(session, change, 2)
    connect(session, second[:38], NOON + 2 * SOAK)
    connect(session, second[38:40], NOON + 2 * SOAK, state=ConfigState.REFUSED)
    run(session, NOON + 2 * SOAK)
    assert state(session, change) == ChangeState.COMPLETED, "2 of 41 are less than 5 %"
    change = propose(session, plan=Plan(1, (1.0,), timedelta(0)), sample_s=600)
    connect(session, wave_of(session, change, 1), NOON + 3 * SOAK)
    run(session, NOON + 3 * SOAK)
    second = wave_of(session, change, 2)
    connect(session, second[:30], NOON + 4 * SOAK)
    connect(session, second[30:33], NOON + 4 * SOAK, state=ConfigState.REFUSED)
    run(session, NOON + 4 * SOAK)
    assert state(session, change) == ChangeState.PAUSED


def test_rolled_back_change_leaves_every_node_and_the_layer_as_before(session: Session) -> None:
    ids = register(session, 6)
    propose(session, plan=AT_ONCE, low_mv=3300)
    run(session, NOON)
    before = told(session, ids)
    change = propose(session, now=NOON + SOAK, sample_s=300, low_mv=None)
    changing.roll_back_change(session, change.id, now=NOON + SOAK)
    run(session, NOON + SOAK)
    assert told(session, ids) == before
    assert state(session, change) == ChangeState.ROLLED_BACK

    change = propose(session, plan=AT_ONCE, now=NOON + 2 * SOAK, sample_s=300)
    run(session, NOON + 2 * SOAK)
    connect(session, ids, NOON + 3 * SOAK)
    run(session, NOON + 3 * SOAK)
    assert state(session, change) == ChangeState.COMPLETED
    changing.roll_back_change(session, change.id, now=NOON + 4 * SOAK)
    run(session, NOON + 4 * SOAK)
    assert told(session, ids) == before
    layer = layering.versions_of(session, FLEET)
    assert [one.settings for one in layer] == [
        {"low_mv": 3300},
        {"low_mv": 3300, "sample_s": 300},
        {"low_mv": 3300},
    ]


def test_aborted_change_stays_with_who_was_told_until_a_later_one_is_through(
    session: Session,
) -> None:
    ids = register(session, 6)
    change = propose(session, sample_s=300)
    first = wave_of(session, change, 1)
    rest = [one for one in ids if one not in first]
    changing.abort_change(session, change.id, now=NOON)
    configuring.configure_node(session, first[0], {"low_mv": 3300}, now=NOON)
    run(session, NOON + SOAK)
    assert [one["sample_s"] for one in told(session, first + rest)] == [300] * 2 + [900] * 4
    origin = layering.effective_settings(session, first[0])["sample_s"].origin
    assert origin == "fleet"
    later = propose(session, plan=AT_ONCE, publish_s=7200)
    run(session, NOON + SOAK)
    assert [one["sample_s"] for one in told(session, ids)] == [900] * 6
    assert [one["publish_s"] for one in told(session, ids)] == [7200] * 6
    with pytest.raises(ChangeElsewhere, match=f"changed again by change {later.id}"):
        changing.roll_back_change(session, change.id, now=NOON + SOAK)


def test_node_that_comes_while_a_change_is_on_its_way_joins_its_tail(session: Session) -> None:
    register(session, 3)
    change = propose(session, plan=Plan(2, (1.0,), timedelta(0)), sample_s=300)
    newcomer = register(session, 1, first=9)
    assert told(session, newcomer)[0]["sample_s"] == 900
    connect(session, wave_of(session, change, 1), NOON + SOAK)
    run(session, NOON + SOAK)
    assert told(session, newcomer)[0]["sample_s"] == 300
    (one,) = register(session, 1, first=10)
    row = session.get_one(Configuration, one)
    assert (row.version, row.settings["sample_s"]) == (1, 300)


def test_node_that_is_only_on_the_list_is_in_no_wave_and_gets_it_when_all_were_told(
    session: Session,
) -> None:
    ids = register(session, 2)
    with db.writing(session):
        session.get_one(Node, ids[1]).enrolled_at = None
    change = propose(session, plan=AT_ONCE, sample_s=300)
    assert change.waves == [1]
    run(session, NOON)
    assert [one["sample_s"] for one in told(session, ids)] == [300, 300]
    listed = [one.node_id for one in drifting.drift_page(session).items]
    assert listed == ids[:1], "who has no identity cannot run anything"


def test_many_nodes_need_another_persons_approval(session: Session) -> None:
    ids = register(session, 3)
    act_as(session, "anna")
    change = propose(session, approval_above=2, sample_s=300)
    run(session, NOON + SOAK)
    assert state(session, change) == ChangeState.AWAITING_APPROVAL
    assert told(session, ids)[0]["sample_s"] == 900
    with pytest.raises(ChangeUnderWay, match=f"Change {change.id} of fleet is under way"):
        propose(session, sample_s=600)
    for author in ("anna", "key 7 of anna"):
        act_as(session, author)
        with pytest.raises(FourEyes):
            changing.approve_change(session, change.id, now=NOON)
    act_as(session, "bert")
    changing.approve_change(session, change.id, now=NOON + SOAK)
    assert [one["sample_s"] for one in told(session, ids)].count(300) == 2
    with pytest.raises(ChangeElsewhere, match="is running; this can be done while it is awaiting"):
        changing.approve_change(session, change.id, now=NOON)


def test_a_group_edit_is_no_way_around_waves(session: Session) -> None:
    register(session, 4)
    group = grouping.create_group(session, "Innenstadt", now=NOON)
    propose(session, layering.group_layer(group), plan=AT_ONCE, sample_s=300)
    everybody = Selection(model="tree-3")
    with pytest.raises(grouping.TooManyAtOnce, match="give 4 nodes another configuration at once"):
        grouping.add_members(session, group.id, everybody, now=NOON, at_once=3)
    assert grouping.members(session, group.id) == []
    assert grouping.add_members(session, group.id, everybody, now=NOON, at_once=4) == 4


def test_who_looks_after_waters_changes_no_tree(session: Session) -> None:
    register(session, 1)
    register(session, 1, model="pond-1", first=2)
    mixed = grouping.create_group(session, "mixed", now=NOON)
    both = Selection(node_ids=("n-000001", "n-000002"))
    grouping.add_members(session, mixed.id, both, now=NOON)
    act_as(session, "wanda", scope=Scope.WATERS)
    for layer in (FLEET, layering.group_layer(mixed)):
        with pytest.raises(rights.NotAllowed):
            previewing.preview(session, layer, {"sample_s": 300})
    with pytest.raises(rights.NotFound):
        previewing.preview(session, model_layer("tree-3"), {"sample_s": 300})
    found = previewing.preview(session, model_layer("pond-1"), {"sample_s": 300})
    assert found.nodes_in_all == 1


def test_a_node_that_cannot_take_it_keeps_what_it_has_and_says_why(session: Session) -> None:
    good, empty = register(session, 2)
    say(session, empty, NOON, battery_mv=3200)
    change = propose(session, plan=AT_ONCE, mute_mv=3300)
    run(session, NOON)
    assert told(session, [good])[0]["mute_mv"] == 3300
    assert "mute_mv" not in told(session, [empty])[0]
    found = changing.change_overview(session, change.id)
    assert (found.nodes, found.cannot, found.told) == (1, 1, 1)
    row = configuring.configuration_of(session, empty)
    assert row.held_back == "3300 mV would silence the node at once: its battery is at 3200 mV."
    say(session, empty, NOON + SOAK, battery_mv=4100)
    configuring.configure_node(session, empty, {"low_mv": 3500}, now=NOON + SOAK)
    row = configuring.configuration_of(session, empty)
    assert (row.held_back, row.settings["mute_mv"]) == (None, 3300)


def test_battery_that_fell_after_the_proposal_is_seen_when_the_node_is_told(
    session: Session,
) -> None:
    ids = register(session, 3)
    change = propose(session, plan=Plan(1, (1.0,), timedelta(0)), mute_mv=3300)
    connect(session, wave_of(session, change, 1), NOON + SOAK)
    victim = wave_of(session, change, 2)[0]
    say(session, victim, NOON + SOAK, battery_mv=3200)
    run(session, NOON + SOAK)
    assert {"mute_mv" in one for one in told(session, [one for one in ids if one != victim])} == {
        True
    }
    assert "mute_mv" not in told(session, [victim])[0]
    (fault,) = [one.fault for one in changing.nodes_of(session, change.id) if one.fault]
    assert "its battery is at 3200 mV" in fault


def test_a_password_of_a_layer_reaches_the_nodes_and_the_same_one_changes_nothing(
    session: Session,
) -> None:
    ids = register(session, 2)
    wifi = [["Bürgerbüro", "Grüße 🌳"], ["frei", ""]]
    propose(session, plan=AT_ONCE, wifi=wifi)
    found = publishing.desired_states(session, ids, now=NOON, secret_key=key)
    assert [found[one].config_values["wifi"] for one in ids] == [wifi] * 2
    assert "Grüße" not in str(told(session, ids)) + str(layering.layers(session))
    run(session, NOON)
    connect(session, ids, NOON + SOAK)
    run(session, NOON + SOAK)
    same = changing.propose_change(session, FLEET, {"wifi": wifi}, now=NOON, secret_key=key)
    assert same is None
    change = propose(session, plan=AT_ONCE, wifi=wifi, low_mv=3300)
    assert change.changed == {"low_mv": "3300"}
    found = publishing.desired_states(session, ids, now=NOON, secret_key=key)
    assert [found[one].config_values["wifi"] for one in ids] == [wifi] * 2
    assert configuring.configuration_of(session, ids[0]).settings["wifi"] == ["Bürgerbüro", "frei"]


@pytest.mark.also_on_postgresql
def test_preview_proposal_and_a_step_ask_as_much_for_ten_nodes_as_for_a_chunk(
    session: Session,
) -> None:
    counts = []
    for model, first, count in (("pond-1", 1, 10), ("tree-3", 100, 800)):
        register_many(session, count, model=model, first=first)
        layer = model_layer(model)
        with statements(session) as preview:
            previewing.preview(session, layer, {"sample_s": 300})
        with statements(session) as proposal:
            change = propose(session, layer, plan=Plan(1, (1.0,), timedelta(0)), sample_s=300)
        connect(session, wave_of(session, change, 1), NOON + SOAK)
        staging.advance(session, change.id, now=NOON + SOAK)
        with statements(session) as step:
            staging.advance(session, change.id, now=NOON + SOAK)
        assert changing.change_overview(session, change.id).told == count
        counts.append([len(preview), len(proposal), len(step)])
    assert counts[0] == counts[1]


class PowerLost(Exception):
    """The proposer dies."""


def die_after(monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    """Two nodes at a time; the process dies when the next would be written down."""
    monkeypatch.setattr(changing, "WRITTEN_AT_ONCE", 2)
    write_down, seen = bulk.chunks, [0]

    def dying(rows: Any, size: int) -> Any:
        if seen[0] >= nodes:
            raise PowerLost
        seen[0] += len(rows)
        return write_down(rows, size)

    monkeypatch.setattr(bulk, "chunks", dying)


def test_change_that_is_written_down_piece_by_piece_is_the_same_as_one_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(session, 7)
    monkeypatch.setattr(changing, "WRITTEN_AT_ONCE", 2)
    change = propose(session, sample_s=300)
    assert change.state == ChangeState.RUNNING
    assert [len(wave_of(session, change, wave)) for wave in (1, 2, 3)] == [2, 2, 3]
    waiting = propose(session, model_layer("tree-3"), publish_s=7200, approval_above=6)
    assert (waiting.state, waiting.needs_approval) == (ChangeState.AWAITING_APPROVAL, True)
    entries = session.scalars(
        select(AuditEntry).where(AuditEntry.action == "change_proposed").order_by(AuditEntry.seq)
    )
    assert [entry.details["nodes"] for entry in entries] == [7, 7]


def test_change_that_was_cut_short_has_told_nobody_and_is_given_up(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = register(session, 7)
    die_after(monkeypatch, 4)
    with pytest.raises(PowerLost):
        propose(session, sample_s=300)
    monkeypatch.undo()
    (change,) = session.scalars(select(ConfigurationChange))
    run(session, NOON + timedelta(minutes=59))
    assert state(session, change) == ChangeState.PREPARING
    assert 300 not in [settings["sample_s"] for settings in told(session, nodes)]
    with pytest.raises(ChangeUnderWay):
        propose(session, sample_s=600)
    with pytest.raises(ChangeElsewhere):
        changing.approve_change(session, change.id, now=NOON)
    run(session, NOON + timedelta(hours=1))
    assert state(session, change) == ChangeState.ABORTED
    assert propose(session, sample_s=600).state == ChangeState.RUNNING


@pytest.mark.also_on_postgresql
@pytest.mark.parametrize("deed", ["change", "abort"])
def test_layer_that_changes_while_its_nodes_are_judged_or_written_down_is_not_overwritten(
    session: Session,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    deed: str,
) -> None:
    register(session, 5)
    monkeypatch.setattr(changing, "WRITTEN_AT_ONCE", 2)
    judge = previewing.outcomes
    once = [True]

    def other_hand(*_: object) -> None:
        if once and once.pop():
            with sessions() as other:
                if deed == "change":
                    with db.writing(other):
                        layering.hold_layer(other, FLEET)
                        layering.set_layer(other, FLEET, {"sample_s": 450}, now=NOON, by="b")
                else:
                    (change,) = other.scalars(select(ConfigurationChange))
                    changing.abort_change(other, change.id, now=NOON)

    if deed == "change":

        def judging(*given: Any) -> Any:
            yield from judge(*given)
            session.rollback()
            other_hand()

        monkeypatch.setattr(previewing, "outcomes", judging)
        with pytest.raises(LayerChanged):
            propose(session, sample_s=300)
        assert session.scalars(select(ConfigurationChange)).all() == []
        return
    write_down = bulk.chunks

    def writing_down(rows: Any, size: int) -> Any:
        found = list(write_down(rows, size))
        event.listen(session, "after_commit", other_hand, once=True)
        return found

    monkeypatch.setattr(bulk, "chunks", writing_down)
    with pytest.raises(ChangeElsewhere):
        propose(session, sample_s=300)
    (change,) = session.scalars(
        select(ConfigurationChange).execution_options(populate_existing=True)
    )
    assert change.state == ChangeState.ABORTED
