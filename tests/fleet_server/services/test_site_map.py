"""How sites stand, for a map: each on its own while they are few, counted when they are many."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy.orm import Session

from fleet_server.services import deploying, site_map, sites
from fleet_server.services.ingest import store_batch
from fleet_server.services.overviews import Shown
from fleet_server.services.site_map import SiteHealth
from fleet_server.services.sites import Box, NewSite, SiteFilter, SiteState


def make(session: Session, code: str, latitude: float, longitude: float) -> int:
    new = NewSite(code, code.title(), "tree", latitude, longitude, tree_number=f"T-{code}")
    return sites.create_site(session, new, is_public=True, now=NOON).id


def test_each_site_has_the_state_of_its_node(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed_node(session, "n-000001")
    deployed_node(session, "n-000002")
    closed = make(session, "closed", 51.6, 7.0)
    make(session, "bare", 51.4, 7.3)
    sites.close_site(session, closed, now=NOON)
    store_batch(session, SimulatedNode().packs([1]), now=NOON)

    def counted(hours: float) -> dict[float, SiteHealth]:
        """The same, asked of the database: by latitude."""
        now = NOON + timedelta(hours=hours)
        with monkeypatch.context() as patch:
            patch.setattr(site_map, "MOST_SINGLE_SITES", 1)
            found = site_map.site_map(session, SiteFilter(), shown=Shown.OWN, now=now)
        return {round(cell.latitude, 3): cell.health for cell in found.cells}

    def states(hours: float) -> dict[str, SiteHealth]:
        now = NOON + timedelta(hours=hours)
        found = site_map.site_map(session, SiteFilter(), shown=Shown.OWN, now=now)
        assert found.box == Box(7.0, 51.4, 7.3, 51.6)
        return {point.code: point.health for point in found.points}

    first = states(1)
    assert first == {
        "n-000001-site": SiteHealth.FRESH,
        "n-000002-site": SiteHealth.NEVER_SEEN,
        "closed": SiteHealth.CLOSED,
        "bare": SiteHealth.BARE,
    }
    # The two nodes' sites are at one place: the worse of their states counts.
    assert counted(1) == {51.6: "closed", 51.48: "never_seen", 51.4: "bare"}
    assert counted(2)[51.48] == "late"
    assert counted(9)[51.48] == "offline"
    assert states(2)["n-000001-site"] is SiteHealth.LATE
    assert states(9)["n-000001-site"] is SiteHealth.OFFLINE


def test_filter_narrows_by_kind_state_text_and_box(session: Session) -> None:
    deployed_node(session, "n-000001", model="pond-1")
    make(session, "linde_1", 51.40, 7.3)
    make(session, "linde%2", 51.45, 7.1)

    def codes(**wanted: object) -> set[str]:
        narrowed = SiteFilter(**wanted)  # type: ignore[arg-type]
        found = site_map.site_map(session, narrowed, shown=Shown.OWN, now=NOON)
        return {point.code for point in found.points}

    assert codes(kind="water") == {"n-000001-site"}
    assert codes(state=SiteState.BARE) == {"linde_1", "linde%2"}
    assert codes(state=SiteState.WITH_NODE) == {"n-000001-site"}
    assert codes(state=SiteState.CLOSED) == set()
    assert codes(text="t-LINDE") == {"linde_1", "linde%2"}
    assert codes(text="%") == {"linde%2"}
    assert codes(text="_") == {"linde_1"}
    assert codes(box=Box(7.0, 51.4, 7.2, 51.6)) == {"linde%2"} | codes(kind="water", box=Box(7.0, 51.4, 7.2, 51.6))  # fmt: skip


def test_many_sites_are_counted_and_none_is_left_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_map, "MOST_SINGLE_SITES", 3)
    for number, (latitude, longitude) in enumerate(
        [(51.40, 7.10), (51.4001, 7.1001), (51.50, 7.30), (51.40, 7.30)]
    ):
        make(session, f"s{number}", latitude, longitude)
    found = site_map.site_map(session, SiteFilter(), shown=Shown.PUBLIC, now=NOON)
    assert (found.total, found.points) == (4, ())
    assert sorted(cell.count for cell in found.cells) == [1, 1, 2]
    assert {cell.health for cell in found.cells} == {SiteHealth.BARE}
    both = max(found.cells, key=lambda cell: cell.count)
    assert both.box == Box(7.10, 51.40, 7.1001, 51.4001)
    assert both.latitude == pytest.approx(51.40005)


def test_sites_all_at_one_place_are_counted_too(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_map, "MOST_SINGLE_SITES", 1)
    for number in range(3):
        make(session, f"s{number}", 51.4, 7.1)
    found = site_map.site_map(session, SiteFilter(), shown=Shown.OWN, now=NOON)
    assert [cell.count for cell in found.cells] == [3]


def test_site_out_of_scope_or_not_public_is_on_no_map(session: Session) -> None:
    deployed_node(session, "n-000001")
    new = NewSite("hidden", "Hidden", "tree", 51.4, 7.1)
    deploying.create_site(session, new, is_public=False, now=NOON)
    found = site_map.site_map(session, SiteFilter(), shown=Shown.PUBLIC, now=NOON)
    assert [point.code for point in found.points] == ["n-000001-site"]
