"""Desired configurations: what is refused before a node could, passwords that nobody reads, and how a node stands to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import text
from sqlalchemy.orm import Session

from fleet_server.services import configuring, publishing
from fleet_server.services.configuring import ConfigurationWrong, Standing
from fleet_server.services.ingest import store_batch
from fleet_server.services.sealing import SealBroken
from fleet_server.wire.configuration import sha256_hex
from fleet_server.wire.desired import DesiredState

NODE = "n-000001"
WIFI = [["Bürgerbüro", "Grüße 🌳"], ["frei", ""]]


def key() -> str:
    return "k" * 32


def configure(session: Session, **settings: Any) -> int:
    return configuring.configure_node(session, NODE, settings, now=NOON, secret_key=key)


def told(session: Session) -> DesiredState:
    return publishing.desired_states(session, [NODE], now=NOON, secret_key=key)[NODE]


@pytest.fixture
def node(session: Session) -> SimulatedNode:
    deployed_node(session, NODE)
    return SimulatedNode(NODE)


def say(session: Session, node: SimulatedNode, **fields: object) -> None:
    store_batch(session, [node.state(at_s=NOON_S + 60, **fields)], now=NOON)


def test_structured_values_reach_the_node_as_it_keeps_them(
    session: Session, node: SimulatedNode
) -> None:
    values = {"limits": [["t30", "below", 32.1, 40]], "every_s": {"t60": 1800}, "low_mv": 3300}
    assert configure(session, **values) == 2
    assert configure(session, **values) == 2, "what was rounded to single precision is the same"
    limits = told(session).config_values["limits"]
    assert limits == [["t30", "below", pytest.approx(32.1, abs=1e-5), 40]]
    assert limits[0][2] != 32.1
    assert configure(session, limits=None) == 3
    assert set(told(session).config_values) == {"sample_s", "publish_s", "every_s", "low_mv"}


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "another model's channel": ({"limits": [["do", "below", 4, 5]]}, "there is no channel do"),
    "a slot's second channel": ({"every_s": {"bot": 900}}, "no slot begins with bot"),
    "the battery's interval": ({"every_s": {"bat": 900}}, "no slot begins with bat; there are r30"),
    "an unknown name": ({"colour": 1}, "colour is no setting of a node; there are every_s"),
    "silence at once": ({"mute_mv": 3900, "low_mv": 4000}, "its battery is at 3874 mV"),
    "more than a node keeps": (
        {"host": "h" * 253, "server_name": "s" * 253, "wifi": [["n" * 32, "p" * 63]] * 4},
        "a node keeps 400",
    ),
    "a number beyond all": ({"limits": [["t30", "below", float("inf"), 2]]}, "two numbers"),
}


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(("settings", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_the_node_would_refuse_is_refused_with_one_sentence(
    session: Session, node: SimulatedNode, settings: dict[str, Any], says: str
) -> None:
    say(session, node, battery_mv=3_874)
    with pytest.raises(ConfigurationWrong) as refusal:
        configure(session, **settings)
    assert says in str(refusal.value)
    assert str(refusal.value).endswith(".")
    assert told(session).config_version == 1


def test_an_interval_that_its_node_model_sets_must_still_be_a_multiple(session: Session) -> None:
    deployed_node(session, NODE, model="pond-2")
    with pytest.raises(ConfigurationWrong) as refusal:
        configure(session, sample_s=1000, publish_s=4000)
    assert str(refusal.value) == "every_s wants whole multiples of sample_s, 1000 seconds."
    assert configure(session, sample_s=1000, publish_s=4000, every_s={}) == 2


def test_a_password_is_told_to_the_node_and_stands_nowhere_in_the_database(
    session: Session, node: SimulatedNode
) -> None:
    configure(session, wifi=WIFI)
    assert told(session).config_values["wifi"] == WIFI
    stored = session.execute(text("SELECT settings FROM configuration")).scalar()
    stored = stored if isinstance(stored, str) else json.dumps(stored)
    assert "Gr" not in json.dumps(json.loads(stored)["wifi"][0][1])
    assert configuring.configuration_of(session, NODE).settings["wifi"] == ["Bürgerbüro", "frei"]
    with pytest.raises(ConfigurationWrong) as refusal:
        configure(session, wifi=[["stadt", "geheim7"]])
    assert "geheim7" not in str(refusal.value)


def test_a_password_sealed_under_another_key_stops_no_other_node_and_is_mended_by_giving_it_again(
    session: Session, node: SimulatedNode
) -> None:
    deployed_node(session, "n-000002")
    configure(session, wifi=WIFI)
    other = lambda: "o" * 32  # noqa: E731
    found = publishing.desired_states(session, [NODE, "n-000002"], now=NOON, secret_key=other)
    assert list(found) == ["n-000002"]
    settings = {"wifi": [["stadt", "bm90aGluZw=="]]}
    with pytest.raises(SealBroken):
        configuring.opened_settings(NODE, settings, secret_key=key)
    assert (
        configuring.configure_node(session, NODE, {"wifi": WIFI}, now=NOON, secret_key=other) == 3
    )
    found = publishing.desired_states(session, [NODE], now=NOON, secret_key=other)
    assert found[NODE].config_values["wifi"] == WIFI


def test_how_a_node_stands_to_its_configuration_is_what_it_said_last(
    session: Session, node: SimulatedNode
) -> None:
    def standing() -> tuple[Standing, str | None]:
        session.expire_all()
        found = configuring.configuration_of(session, NODE)
        return found.standing, found.reason

    values = {"sample_s": 900, "publish_s": 3600}
    first = {"config_version": 1, "config_sha256": sha256_hex(1, values)}
    assert standing() == (Standing.WAITING, None)
    say(session, node, **first, config_state="confirmed")
    assert standing() == (Standing.IN_FORCE, None)
    configure(session, wifi=WIFI)
    assert standing() == (Standing.WAITING, None)
    second = {"config_version": 2, "config_sha256": sha256_hex(2, values | {"wifi": WIFI})}
    say(session, node, **second, config_state="trial")
    assert standing() == (Standing.TRIAL, None)
    say(session, node, **first, config_state="rolled_back", config_reason="wifi 1 not found")
    assert standing() == (Standing.ROLLED_BACK, "wifi 1 not found")
    say(session, node, **first, config_state="refused", config_reason="limits")
    assert standing() == (Standing.REFUSED, "limits")
    configuring.configure_node(session, NODE, {"publish_s": 1800}, now=NOON.replace(hour=13))
    assert standing() == (Standing.WAITING, None), "that was said of the one before"
