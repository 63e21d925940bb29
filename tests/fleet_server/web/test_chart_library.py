"""The chart library: fetched once, pinned by hash, and missed without harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet_server.errors import Unavailable
from fleet_server.web import assets
from tests.fleet_server.world_fixtures import World, log_in


class _Registry:
    """Stands where npm stands: puts the files there, or cannot be reached."""

    def __init__(self, *, is_reachable: bool = True) -> None:
        self.is_reachable = is_reachable
        self.asked = 0

    def __call__(self, folder: Path) -> None:
        self.asked += 1
        if not self.is_reachable:
            raise Unavailable("no registry")
        for name in ("dist/uPlot.iife.min.js", "dist/uPlot.min.css", "LICENSE"):
            path = folder / "node_modules" / "uplot" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made up")


def test_library_is_fetched_once(tmp_path: Path) -> None:
    registry = _Registry()
    folder = tmp_path / "cache" / "front-end"
    for _ in range(3):
        assert assets.has_assets(assets.ensure_assets(folder, install=registry))
    assert registry.asked == 1


def test_half_made_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "front-end"
    folder.mkdir()
    (folder / "uPlot.min.css").write_text("half")
    assets.ensure_assets(folder, install=_Registry())
    assert assets.has_assets(folder)


def test_unreachable_registry_leaves_nothing_behind_and_the_next_try_succeeds(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "front-end"
    registry = _Registry(is_reachable=False)
    with pytest.raises(Unavailable):
        assets.ensure_assets(folder, install=registry)
    assert list(tmp_path.iterdir()) == []
    registry.is_reachable = True
    assets.ensure_assets(folder, install=registry)
    assert assets.has_assets(folder)


def test_cache_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="pages work without charts"):
        assets.ensure_assets(tmp_path / "file" / "front-end", install=_Registry())


def test_lock_file_pins_by_hash_and_names_no_registry() -> None:
    lock = json.loads((assets.FRONT_END / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_node_page_works_without_the_library(
    sqlite_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "vendor_folder", lambda: tmp_path / "empty")
    client = sqlite_world.app().test_client()
    log_in(client)
    page = client.get("/fleet/nodes/n-000001?range=24h")
    assert page.status_code == 200
    assert "data-series" not in page.text
    assert "<details open>" in page.text
    assert client.get("/static/vendor/uPlot.min.css").status_code == 404
