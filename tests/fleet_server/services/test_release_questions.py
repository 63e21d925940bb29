"""Releases on both databases: taken, kept, signed anew, and which nodes run what."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.ngclient import Updater

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import AlertKind, AuditEntry, Node, NodeStatus, Release, SignedMetadata
from fleet_server.services import (
    alert_words,
    alerting,
    release_repository,
    releases,
    rights,
)
from fleet_server.services.releases import ReleaseFilter
from fleet_server.wire.manifest import decode_manifest
from provisioning import release_ceremony
from tests.fleet_server.services.release_city import LATER, NOW, City, city_with_a_release
from tests.releases import small_sources


@pytest.fixture
def city(session: Session, tmp_path: Path) -> City:
    return city_with_a_release(session, tmp_path)


def _count(session: Session) -> tuple[int, int]:
    return (
        len(session.scalars(select(Release.id)).all()),
        len(session.scalars(select(SignedMetadata.version)).all()),
    )


def _version(city: City, role: str) -> int:
    return release_repository.newest_metadata(city.session)[role].version


def test_what_is_published_reaches_the_reference_client(city: City, tmp_path: Path) -> None:
    outcome = city.publish()
    assert sorted(outcome.releases) == [("pond-1", "0.7.0"), ("tree-3", "0.7.0")]
    for name in ("client", "downloads"):
        (tmp_path / name).mkdir()
    shelf = city.shelf()
    client = Updater(
        str(tmp_path / "client"),
        "https://fleet/metadata/",
        str(tmp_path / "downloads"),
        "https://fleet/targets/",
        fetcher=shelf,
        bootstrap=city.desk.folder.metadata("root", 1),
    )
    # The client judges by the machine's clock, which is not the server's here.
    client._trusted_set.reference_time = LATER
    client.refresh()
    for target_path in ("tree-3/0.7.0.cbor", "pond-1/0.7.0.cdx.json"):
        target = client.get_targetinfo(target_path)
        assert target is not None
        client.download_target(target)
    manifest = decode_manifest(releases.release_of(city.session, "tree-3", "0.7.0").manifest)
    for file in manifest.files:
        data = release_repository.bundle_file(lambda: city.store, file.sha256.hex())
        assert hashlib.sha256(data).digest() == file.sha256


def test_published_twice_is_there_once(city: City) -> None:
    city.publish()
    before = _count(city.session)
    again = city.publish(now=LATER + timedelta(minutes=5))
    assert (dict(again.metadata), list(again.releases)) == ({}, [])
    assert _count(city.session) == before


def test_a_release_is_kept_with_parts_support_and_who_sent_it(city: City) -> None:
    rights.act_as(
        city.session,
        rights.Actor(
            "key 7 of anna", frozenset({rights.Right.AUTHOR_RELEASES, rights.Right.SEE_FLEET})
        ),
    )
    city.publish()
    release = releases.release_of(city.session, "tree-3", "0.7.0")
    assert (release.counter, release.notes, release.uploaded_by) == (7, "Wärmer", "key 7 of anna")
    assert f"{release.support_until:%Y-%m-%d}" == "2031-12-31"
    assert release.sbom["bomFormat"] == "CycloneDX"
    whole = releases.signed_release(city.session, release.id)
    assert [part.name for part in whole.components] == [
        "stadtsensor-node", "micropython", "node/bus/adc.mpy", "node/cycle.mpy",
    ]  # fmt: skip
    assert whole.role is not None
    assert [(one.holder, one.has_signed) for one in whole.role.signatures] == [("author", True)]
    entry = city.session.scalars(
        select(AuditEntry).where(AuditEntry.action == "releases_published")
    ).one()
    assert entry.actor == "key 7 of anna"


def test_the_timestamp_is_a_day_old_at_most_and_the_snapshot_never_runs_out(city: City) -> None:
    def keep(now: datetime) -> list[str]:
        return release_repository.keep_fresh(city.session, city.keys_dir, now=now)

    assert keep(NOW) == []
    city.publish()
    assert keep(LATER + timedelta(hours=23)) == []
    assert keep(LATER + timedelta(days=1)) == ["timestamp"]
    first = int(LATER.timestamp()) // 60
    assert (_version(city, "snapshot"), _version(city, "timestamp")) == (first, first + 24 * 60)
    assert keep(LATER + timedelta(days=15)) == ["snapshot", "timestamp"]
    for role in ("snapshot", "timestamp"):
        row = release_repository.newest_metadata(city.session)[role]
        assert row.expires_at - (LATER + timedelta(days=15)) >= timedelta(days=7)
    assert release_repository.metadata_file(city.session, f"{first}.snapshot.json")


def test_somebody_is_called_a_week_before_a_role_runs_out(city: City) -> None:
    city.publish()

    def called(after: timedelta) -> list[str]:
        return [row.role for row in release_repository.expiring(city.session, now=NOW + after)]

    assert called(timedelta(days=1)) == []
    # Nobody has renewed the timestamp for days.
    assert called(timedelta(days=4)) == ["timestamp"]
    assert called(timedelta(days=24)) == ["timestamp", "snapshot"]
    look = alerting.look(city.session, now=NOW + timedelta(days=359), wall_now=NOW)
    assert look.opened == 6
    assert alerting.look(city.session, now=NOW + timedelta(days=359), wall_now=NOW).opened == 0
    alert = alerting.alerts(city.session, alerting.Wanted(kinds=[AlertKind.SIGNATURE]), limit=9)[0]
    said = alert_words.sentence(alert.kind, alert.details, "en")
    assert said.startswith("What tree-3 signs of the releases runs out at 2027-07-14 12:00 UTC;")
    release_ceremony.renew(city.desk.folder, "tree-3", now=NOW + timedelta(days=300))
    city.desk.sign_all("author")
    city.publish(now=NOW + timedelta(days=359))
    # The timestamp and the snapshot were signed in the same breath.
    assert alerting.look(city.session, now=NOW + timedelta(days=359), wall_now=NOW).closed == 3
    assert called(timedelta(days=359)) == ["pond-1", "root", "targets"]


def test_who_runs_a_version_with_a_part_is_one_question(city: City) -> None:
    city.publish()
    city.desk.release(
        "0.8.0", 8, sources=small_sources(city.sources, body="return 2"), micropython=(1, 28, 0)
    )
    city.send_files()
    city.publish()
    old, new = (
        releases.release_of(city.session, "tree-3", version) for version in ("0.7.0", "0.8.0")
    )
    pond = releases.release_of(city.session, "pond-1", "0.7.0")
    assert old.bundle_sha256 == pond.bundle_sha256
    for node_id, model, release in (
        ("n-1", "tree-3", old), ("n-2", "tree-3", new), ("n-3", "pond-1", pond), ("n-4", "tree-3", None),
    ):  # fmt: skip
        _add_node(city.session, node_id, model, release)

    def found(**wanted: str) -> list[str]:
        page = releases.nodes_with(city.session, ReleaseFilter(**wanted), limit=50)
        return [one.node_id for one in page.items]

    assert found(component="micropython") == ["n-1", "n-2", "n-3"]
    assert found(component="micropython", versions="<1.28") == ["n-1", "n-3"]
    assert found(component="micropython", versions=">=1.28,<2") == ["n-2"]
    assert found(purl="pkg:github/micropython/micropython") == ["n-1", "n-2", "n-3"]
    assert found(purl="pkg:github/micropython/micropython@v1.28.0") == ["n-2"]
    assert found(purl="pkg:github/micropython/micropyth") == []
    assert found(component="node/cycle.mpy", model="pond-1") == ["n-3"]
    assert found(component="no_such_part") == []
    assert found(versions="<0.8") == ["n-1", "n-3"]
    lines = releases.release_page(
        city.session, ReleaseFilter(component="micropython", versions="<1.28"), limit=50
    ).items
    assert {(one.release.model, one.release.version, one.nodes) for one in lines} == {
        ("tree-3", "0.7.0", 1), ("pond-1", "0.7.0", 1),
    }  # fmt: skip
    trees = rights.Actor("otto", frozenset({rights.Right.SEE_FLEET}), rights.Scope.TREES)
    rights.act_as(city.session, trees)
    assert found(component="micropython") == ["n-1", "n-2"]
    with pytest.raises(NotFound):
        releases.find(city.session, pond.id)


def _add_node(session: Session, node_id: str, model: str, release: Release | None) -> None:
    with db.writing(session):
        session.add(
            Node(
                node_id=node_id,
                label=node_id,
                model=model,
                state="enrolled",
                enrolled_at=NOW,
                public_key_sha256=hashlib.sha256(node_id.encode()).hexdigest(),
            )
        )
        session.flush()
        session.add(
            NodeStatus(
                node_id=node_id,
                model=model,
                version=release and release.version,
                bundle_sha256=release and release.bundle_sha256,
            )
        )
