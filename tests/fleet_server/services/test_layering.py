"""Layers, groups and tags: which wish has the last word, and what an upgrade makes of what nodes had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from databases import Databases
from factories import NOON, deployed_node
from servers import PostgresqlServer
from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import FleetError
from fleet_server.models import Configuration, NodeGroup
from fleet_server.services import changing, configuring, deploying, grouping, layering, staging
from fleet_server.services.changing import AT_ONCE
from fleet_server.services.grouping import GroupExists, GroupInUse, GroupWrong
from fleet_server.services.layering import FLEET, Layer, group_layer, model_layer
from fleet_server.services.selecting import Selection, SelectionWrong
from fleet_server.wire.configuration import sha256_hex
from tests.fleet_server.services.fleet_of_nodes import register, statements, told

NODE = "n-000001"


def want(session: Session, layer: Layer, **settings: Any) -> None:
    changing.propose_change(session, layer, settings, now=NOON, plan=AT_ONCE)
    while staging.advance_all(session, now=NOON):
        pass


def group(session: Session, name: str, priority: int = 0, **rule: Any) -> NodeGroup:
    selection = Selection(**rule) if rule else None
    return grouping.create_group(session, name, priority=priority, rule=selection, now=NOON)


def origins(session: Session, node_id: str = NODE) -> dict[str, tuple[Any, str]]:
    found = layering.effective_settings(session, node_id)
    return {name: (one.value, one.origin) for name, one in found.items()}


def test_the_last_layer_that_names_a_setting_has_the_last_word(session: Session) -> None:
    register(session, 1)
    low, high = group(session, "low", 1, model="tree-3"), group(session, "high", 2, tag="east")
    grouping.tag_nodes(session, Selection(node_ids=(NODE,)), "east", now=NOON)
    want(session, FLEET, sample_s=60, publish_s=7200, urgent_s=60, low_mv=3100, port=1)
    want(session, model_layer("tree-3"), sample_s=120, urgent_s=60, low_mv=3200, port=2)
    want(session, group_layer(low), sample_s=180, low_mv=3300, port=3)
    want(session, group_layer(high), low_mv=3400, port=4)
    configuring.configure_node(session, NODE, {"port": 5}, now=NOON)
    assert origins(session) == {
        "publish_s": (7200, "fleet"),
        "urgent_s": (60, "model tree-3"),
        "sample_s": (180, "group low"),
        "low_mv": (3400, "group high"),
        "port": (5, f"node {NODE}"),
    }
    assert told(session, [NODE])[0] == {
        name: value for name, (value, _) in origins(session).items()
    }

    grouping.change_group(session, low.id, priority=3, now=NOON)
    assert told(session, [NODE])[0]["low_mv"] == 3300
    grouping.untag_nodes(session, Selection(tag="east"), "east", now=NOON)
    configuring.configure_node(session, NODE, {"port": None}, now=NOON)
    want(session, group_layer(low), port=None, sample_s=None)
    assert told(session, [NODE])[0]["port"] == 2
    want(session, model_layer("tree-3"), sample_s=None, urgent_s=None, port=None, low_mv=None)
    want(session, FLEET, sample_s=None, urgent_s=None, publish_s=None, port=None)
    assert origins(session)["sample_s"] == (900, "model tree-3, provisioned")


def test_version_rises_only_when_what_the_node_is_told_changes(session: Session) -> None:
    register(session, 1)
    want(session, FLEET, low_mv=3300)
    row = session.get_one(Configuration, NODE)
    assert (row.version, row.sha256) == (2, sha256_hex(2, row.settings))
    want(session, model_layer("tree-3"), low_mv=3300)
    configuring.configure_node(session, NODE, {"low_mv": 3300}, now=NOON)
    want(session, FLEET, low_mv=3400)
    assert session.get_one(Configuration, NODE).version == 2


def test_nodes_join_and_leave_by_rule_and_are_told_what_follows(session: Session) -> None:
    deployed_node(session, NODE)
    deployed_node(session, "n-000002", model="pond-1")
    register(session, 1, first=3)
    near = group(session, "near", near=(51.4801, 7.2201, 20))
    want(session, group_layer(near), sample_s=300)
    by_hand = Selection(node_ids=(NODE,))
    grouping.add_members(session, near.id, by_hand, now=NOON)
    assert [one.node_id for one in grouping.members(session, near.id)] == [NODE, "n-000002"]
    assert [one["sample_s"] for one in told(session, [NODE, "n-000002", "n-000003"])] == [300, 300, 900]  # fmt: skip
    far = grouping.change_group(session, near.id, rule=Selection(near=(51.49, 7.22, 300)), now=NOON)
    assert [one.node_id for one in grouping.members(session, far.id)] == [NODE], "by hand it stays"
    assert told(session, ["n-000002"])[0]["sample_s"] == 900
    site = deploying.NewSite("north", "North", "tree", 51.4901, 7.22)
    deploying.create_site(session, site, is_public=False, now=NOON)
    deploying.deploy_node(session, "n-000003", site_code="north", from_at=NOON, now=NOON)
    grouping.follow_rules(session, now=NOON)
    assert told(session, ["n-000003"])[0]["sample_s"] == 300
    with statements(session) as idle:
        grouping.follow_rules(session, now=NOON)
    assert len(idle) <= 3
    assert grouping.remove_members(session, near.id, by_hand, now=NOON) == 1
    assert told(session, [NODE])[0]["sample_s"] == 900
    (shown,) = grouping.groups(session)
    assert (shown.members, shown.rule) == (1, Selection(near=(51.49, 7.22, 300)))


WRONG: list[tuple[type[FleetError], str, dict[str, Any]]] = [
    (GroupWrong, "A group's name has 1 to 64", {"name": ""}),
    (GroupWrong, "A group's name is no number", {"name": "17"}),
    (GroupWrong, "A group's priority is from", {"name": "x", "priority": 9999}),
    (GroupExists, "There is already a group taken.", {"name": "taken"}),
    (SelectionWrong, "tree-9 is no node model; there", {"name": "x", "rule": {"model": "tree-9"}}),
    (SelectionWrong, "must be tree or water", {"name": "x", "rule": {"site_kind": "sea"}}),
    (SelectionWrong, "near wants latitude", {"name": "x", "rule": {"near": (91.0, 0.0, 5)}}),
    (SelectionWrong, "goes by model, site kind", {"name": "x", "rule": {"group": "taken"}}),
]


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(("kind", "says", "given"), WRONG)
def test_a_group_that_cannot_be_is_refused_with_one_sentence(
    session: Session, kind: type[FleetError], says: str, given: dict[str, Any]
) -> None:
    group(session, "taken")
    rule = Selection(**given["rule"]) if "rule" in given else None
    with pytest.raises(kind, match=says):
        grouping.create_group(session, **{**given, "rule": rule}, now=NOON)
    assert len(grouping.groups(session)) == 1


def test_group_that_still_wants_something_cannot_be_forgotten(session: Session) -> None:
    register(session, 1)
    made = group(session, "east", model="tree-3")
    want(session, group_layer(made), sample_s=300)
    with pytest.raises(GroupInUse, match="take its settings back first"):
        grouping.delete_group(session, made.id, now=NOON)
    want(session, group_layer(made), sample_s=None)
    grouping.delete_group(session, made.id, now=NOON)
    assert grouping.groups(session) == []


def test_what_a_node_had_before_layers_is_its_own_afterwards(
    databases: Databases, tmp_path: Path
) -> None:
    if isinstance(databases, PostgresqlServer):
        engine = db.make_engine(databases.url(databases.create_database()))
    else:
        engine = db.make_engine(f"sqlite:///{tmp_path}/old.sqlite3")
    db.upgrade(engine, "0010")
    at = int(NOON.timestamp()) if engine.dialect.name == "sqlite" else NOON
    own = {"sample_s": 900, "publish_s": 1800, "wifi": [["stadt", "c2VhbGVk"]]}
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection, only=["node", "configuration", "node_status"])
        for node_id, settings in ((NODE, own), ("n-000002", {"sample_s": 900, "publish_s": 3600})):
            node = {"node_id": node_id, "label": "l", "model": "tree-3", "state": "enrolled"}
            node |= {"enrolled_at": at, "public_key_sha256": node_id}
            connection.execute(old.tables["node"].insert().values(node))
            connection.execute(old.tables["node_status"].insert().values(node_id=node_id))
            row = {"node_id": node_id, "version": 7, "settings": settings, "changed_at": at}
            connection.execute(old.tables["configuration"].insert().values(row))

    db.upgrade(engine)

    with db.session_factory(engine)() as session:
        row = session.get_one(Configuration, NODE)
        assert (row.version, row.settings, row.changed_at) == (7, own, NOON)
        assert row.sha256 == sha256_hex(7, own)
        settings = layering.layer_settings(session, layering.node_layer(NODE))
        assert settings == {"publish_s": 1800, "wifi": [["stadt", "c2VhbGVk"]]}
        assert layering.layer_settings(session, layering.node_layer("n-000002")) == {}
        assert layering.apply(session, [NODE, "n-000002"], now=NOON)[0].changes is False
        assert json.dumps(origins(session)["publish_s"]) == f'[1800, "node {NODE}"]'
    engine.dispose()
