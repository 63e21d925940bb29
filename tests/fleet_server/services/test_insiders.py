"""Attacks from within, by somebody who is trusted with a part: each ends in a refusal, and succeeds where that one defence is taken out.

What a node refuses of them is in tests/firmware/test_update_attacks.py; docs/security/attacks.md lists both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from factories import NOON
from sqlalchemy.orm import Session

from fleet_server.models import CampaignState
from fleet_server.services import campaign_steps, campaigning, releases, rights
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import FourEyes, Plan
from fleet_server.services.releasing import ReleaseRefused
from fleet_server.wire import signed_releases
from provisioning.release_building import sign_release
from tests.fleet_server.services.campaign_fleet import Talker, act_as, add_release
from tests.fleet_server.services.fleet_of_nodes import register
from tests.fleet_server.services.release_city import LATER, City
from tests.releases import Desk

ONE_CANARY = Plan(canaries=1, minimum_reached=1)
Attack = Callable[[Session, Talker], None]


def everybody_is_somebody_else(patch: pytest.MonkeyPatch) -> None:
    """The defence taken out: nobody is known again."""
    patch.setattr(rights, "person", lambda _name: object())


def keys_are_persons(patch: pytest.MonkeyPatch) -> None:
    """The defence taken out: a key is not known as its owner's."""
    patch.setattr(rights, "person", lambda name: name)


def planned(session: Session) -> int:
    """A campaign of anna's that waits for approval. She has every right, as an administrator has."""
    release = releases.release_of(session, "tree-3", "0.8.0")
    act_as(session, "anna")
    made = campaigning.create_campaign(session, release.id, Target(), now=NOON, plan=ONE_CANARY)
    campaigning.start_campaign(session, made.id, now=NOON)
    return made.id


def approve_ones_own(session: Session, talker: Talker, *, by: str = "anna") -> None:
    campaign = planned(session)
    act_as(session, by)
    with suppress(FourEyes):
        campaigning.approve_campaign(session, campaign, now=NOON)
    campaign_steps.advance_all(session, now=NOON)


def approve_by_ones_key(session: Session, talker: Talker) -> None:
    approve_ones_own(session, talker, by="key 7 of anna")


def _failed(session: Session, talker: Talker) -> int:
    """A campaign of anna's that bert approved, and that the canary stopped."""
    campaign = planned(session)
    act_as(session, "bert")
    campaigning.approve_campaign(session, campaign, now=NOON)
    campaign_steps.advance_all(session, now=NOON)
    talker.roll_back(None, NOON)  # type: ignore[arg-type] # it only tells of it
    campaign_steps.advance_all(session, now=NOON)
    assert campaigning.overview(session, campaign).campaign.state == CampaignState.PAUSED
    return campaign


def go_on_over_failures(session: Session, talker: Talker) -> None:
    campaign = _failed(session, talker)
    act_as(session, "anna")
    with suppress(FourEyes):
        campaigning.resume_campaign(session, campaign, now=NOON, tries_again=True)
    campaign_steps.advance_all(session, now=NOON)


def hide_a_failure(session: Session, talker: Talker) -> None:
    """The failure is taken from the count, and who paused goes on; anna had paused before the canary told."""
    campaign = planned(session)
    act_as(session, "bert")
    campaigning.approve_campaign(session, campaign, now=NOON)
    campaign_steps.advance_all(session, now=NOON)
    told = talker.release or {}
    act_as(session, "anna")
    campaigning.pause_campaign(session, campaign, now=NOON)
    heard = {name: told[name] for name in ("assignment", "attempt")}
    talker.tell("rolled_back", now=NOON, reason="crashed", **heard)
    campaign_steps.advance_all(session, now=NOON)
    with suppress(FourEyes):
        campaigning.retry_node(session, campaign, talker.node.node_id, now=NOON)
    campaigning.resume_campaign(session, campaign, now=NOON)
    campaign_steps.advance_all(session, now=NOON)


CASES = [
    pytest.param(approve_ones_own, everybody_is_somebody_else, id="approves the own campaign"),
    pytest.param(approve_by_ones_key, keys_are_persons, id="approves it by a key"),
    pytest.param(go_on_over_failures, everybody_is_somebody_else, id="goes on over failures"),
    pytest.param(hide_a_failure, everybody_is_somebody_else, id="hides a failure"),
]


@pytest.fixture
def talker(session: Session) -> Talker:
    """A node that there is a release for."""
    made = Talker(session, register(session, 1)[0])
    made.say(NOON)
    add_release(session)
    return made


@pytest.mark.parametrize(("attack", "_without"), CASES)
def test_an_author_alone_gets_no_release_to_a_node(
    session: Session, talker: Talker, attack: Attack, _without: object
) -> None:
    attack(session, talker)
    assert talker.release is None


@pytest.mark.parametrize(("attack", "without"), CASES)
def test_an_author_alone_gets_it_there_where_nobody_asks_who_it_was(
    session: Session,
    talker: Talker,
    monkeypatch: pytest.MonkeyPatch,
    attack: Attack,
    without: Callable[[pytest.MonkeyPatch], None],
) -> None:
    without(monkeypatch)
    attack(session, talker)
    assert talker.release is not None


# ------------------------------------------------------------------------------------------------- signs alone


@pytest.fixture
def city(session: Session, tmp_path: Path) -> City:
    """Two have to sign for trees: anna, who has signed, and bert, who has not."""
    made = City(session, tmp_path, models=("tree-3",))
    made.desk = Desk(
        tmp_path / "two", now=NOON, models=("tree-3",), online=made.cards, authors=("anna", "bert")
    )
    made.trust()
    made.desk.build("0.7.0", 7, sources=made.sources)
    sign_release(
        made.desk.folder,
        "0.7.0",
        made.desk.card("anna"),
        lambda: made.desk.signers["anna"],
        models=(),
        now=NOON,
    )
    return made


def publish_alone(city: City) -> None:
    """What anna has signed, as if that were enough."""
    folder = city.desk.folder
    draft = folder.draft("tree-3")
    assert draft is not None
    documents = {
        f"tree-3/0.7.0{end}": folder.built("tree-3", f"0.7.0{end}") or b""
        for end in (".cbor", ".cdx.json")
    }
    for path in (folder.path / "targets" / "files").iterdir():
        city.store.put(f"releases/{path.name[:2]}/{path.name}", path.read_bytes())
    city.publish(replace(city.given(), roles={"tree-3": draft}, documents=documents), now=LATER)


def test_one_of_two_who_have_to_sign_publishes_nothing_alone(city: City) -> None:
    with pytest.raises(ReleaseRefused, match="tree-3 1 has 1 of 2 signatures"):
        publish_alone(city)
    assert releases.releases_of(city.session, "tree-3") == []


def test_one_of_two_publishes_alone_where_nobody_counts(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node counts for itself all the same."""
    monkeypatch.setattr(signed_releases, "_check_signed", lambda *_args, **_named: None)
    publish_alone(city)
    assert [one.version for one in releases.releases_of(city.session, "tree-3")] == ["0.7.0"]
