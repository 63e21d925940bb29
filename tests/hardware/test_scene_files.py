"""Scene files: what the shipped ones hold, how they grow, and that a wrong one is refused with one sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hardware import scenes
from hardware.catalogue import load_node_model
from hardware.scenes import (
    Computed,
    Measured,
    SceneError,
    Synthetic,
    load_scene,
    scene_names,
)
from hardware.scenes.faults import FAULTS_OF_DRIVER, Fault

_MINIMAL = """
id = "mine"
title = "Mine"
seed = 1
[[site]]
id = "pond"
name = "Pond"
kind = "water"
latitude = 51.48
longitude = 7.22
[[node]]
label = "pond-01"
model = "pond-1"
site = "pond"
"""


@pytest.fixture
def scene_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_scenes_that_come_with_the_package():
    assert scene_names() == ("bochum_summer", "every_probe", "real", "small", "soil_and_level")


def test_default_scene_alternates_six_trees_and_six_waters_in_bochum():
    scene = load_scene()

    assert [node.model for node in scene.nodes] == ["tree-3", "pond-1"] * 6
    assert all(51.40 < site.latitude < 51.53 for site in scene.sites)
    assert all(7.10 < site.longitude < 7.35 for site in scene.sites)
    assert all(isinstance(s, Synthetic) for node in scene.nodes for s in node.sources.values())


def test_six_nodes_are_three_trees_and_three_waters_with_their_sites():
    scene = load_scene(nodes=6)

    assert [node.label for node in scene.nodes] == [
        "tree-01", "pond-01", "tree-02", "pond-02", "tree-03", "pond-03",
    ]  # fmt: skip
    assert {site.id for site in scene.sites} == {node.site for node in scene.nodes}


def test_a_thousand_nodes_grow_from_twelve_by_a_rule_that_never_changes_the_first():
    few, many = load_scene(nodes=30), load_scene(nodes=1000)

    assert many.nodes[:30] == few.nodes
    assert len({node.label for node in many.nodes}) == 1000
    assert len({(site.latitude, site.longitude) for site in many.sites}) == 1000
    assert sum(node.model == "tree-3" for node in many.nodes) == 500
    assert many.nodes[12].label == "tree-07"


def test_real_scene_gives_no_more_nodes_than_it_has(small_series):
    assert (
        len(load_scene(small_series / "scene.toml", nodes=50, series_dir=small_series).nodes) == 2
    )


def test_seed_of_the_caller_takes_the_place_of_the_files():
    assert load_scene(seed=77).seed == 77
    assert load_scene().seed == 1


def test_every_site_of_every_shipped_scene_has_a_name_and_every_fault_is_its_drivers():
    for name in ("bochum_summer", "small"):
        scene = load_scene(name)
        assert all(site.name and site.id for site in scene.sites)
        for node in scene.nodes:
            assert set(node.sources) == {c.key for c in load_node_model(node.model).channels}


def test_every_kind_of_fault_belongs_to_some_driver():
    assert frozenset().union(*FAULTS_OF_DRIVER.values()) == set(Fault)


def test_small_scene_reads_measured_columns_and_computes_the_saturation():
    pond = load_scene("small").node("pond-01")

    assert isinstance(pond.sources["do"], Measured)
    assert isinstance(pond.sources["sat"], Computed)
    assert isinstance(pond.sources["bat"], Synthetic)


@pytest.fixture
def small_series(tmp_path):
    """A folder of measured files with a scene of its own."""
    folder = Path(scenes.__file__).parent
    for file in (folder / "small").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "scene.toml").write_bytes((folder / "small.toml").read_bytes())
    return tmp_path


@pytest.mark.parametrize("asked", [None, "bochum_summer", "real"])
def test_scene_toml_in_the_series_folder_wins(small_series, asked):
    assert load_scene(asked, series_dir=small_series).id == "small"


def test_a_scene_that_is_named_is_not_replaced_by_the_folders_own(small_series, scene_file):
    assert load_scene(scene_file(_MINIMAL), series_dir=small_series).id == "mine"


def test_series_folder_without_a_scene_means_the_real_one(tmp_path):
    with pytest.raises(
        SceneError, match=r"The measured series nerrs_grand_bay_2021_07\.csv is not in"
    ):
        load_scene(series_dir=tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (('title = "Mine"', ""), "mine.toml: the key title is missing."),
        (("seed = 1", 'seed = "1"'), "mine.toml: seed must be a whole number."),
        (("seed = 1", "seed = 1\nweather = 2"), "mine.toml: the key weather is not known."),
        (('kind = "water"', 'kind = "river"'), "site[pond]: kind must be tree or water, not river."),
        (("latitude = 51.48", "latitude = 151.48"), "site[pond]: latitude and longitude are not a place on Earth."),
        (('site = "pond"', 'site = "lake"'), "node pond-01 stands at lake, which is no site."),
        (('model = "pond-1"', 'model = "pond-7"'), "node[pond-01]: Node model pond-7 is not known"),
        (('model = "pond-1"', 'model = "tree-3"'), "node pond-01 is for a tree site, but pond is water."),
        (("[[node]]", "[[node"), "mine.toml is not valid TOML"),
        (("[[node]]", "[node]"), "node must be a list of tables."),
        (("longitude = 7.22", "longitude = 7.22\nmodel = { unsealed = 1 }"), "a water site has no parameter unsealed."),
        (('site = "pond"', 'site = "pond"\n[[node.disturbance]]\nkeys = ["do"]\nfault = "melted"\nfrom_h = 0\nhours = 1'), "the fault melted is not known."),
        (('site = "pond"', 'site = "pond"\n[[node.disturbance]]\nkeys = ["do"]\nfault = "power_on"\nfrom_h = 0\nhours = 1'), "a modbus probe cannot have the fault power_on."),
        (('site = "pond"', 'site = "pond"\n[[node.disturbance]]\nkeys = ["t30"]\nfault = "stuck"\nfrom_h = 0\nhours = 1'), "Node model pond-1 has no channel t30."),
        (('site = "pond"', 'site = "pond"\n[[node.disturbance]]\nkeys = ["do"]\nfault = "stuck"\nfrom_h = 30\nhours = 1'), "from_h must be from 0 to 24"),
        (('site = "pond"', 'site = "pond"\n[node.channels.t30]\ncolumn = "x"'), "node model pond-1 has no channel t30."),
        (('site = "pond"', 'site = "pond"\n[node.channels.sat]\ncomputed = "guess"'), "the formula guess is not known."),
    ],
)  # fmt: skip
def test_wrong_scene_is_refused_with_one_sentence(scene_file, damage, sentence):
    assert damage[0] in _MINIMAL
    with pytest.raises(SceneError, match=re.escape(sentence)) as refused:
        load_scene(scene_file(_MINIMAL.replace(*damage, 1)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"path_or_name": "atlantis"}, "There is no scene atlantis"),
        ({"path_or_name": "real"}, "needs the folder of its measured files (--series DIR)."),
        ({"series_dir": Path("/does/not/exist")}, "There is no folder /does/not/exist."),
        ({"nodes": 0}, "A scene needs at least one node."),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_sentence(arguments, sentence):
    with pytest.raises(SceneError, match=re.escape(sentence)):
        load_scene(**arguments)


def test_a_node_or_channel_that_is_not_there_is_named():
    with pytest.raises(SceneError, match="has no node tree-99"):
        load_scene().node("tree-99")


def test_server_can_read_scenes_without_the_virtual_board():
    code = "import sys, hardware.scenes as s; s.load_scene(); print([m for m in sys.modules if 'virtual_board' in m])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_readmes_scene_and_series_can_be_used_as_they_stand(tmp_path):
    text = (Path(scenes.__file__).parent / "README.md").read_text(encoding="utf-8")
    scene, series, fault = re.findall(r"```(?:toml|csv)\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "scene.toml").write_text(scene + fault, encoding="utf-8")
    (tmp_path / "mypond.csv").write_text(series, encoding="utf-8")

    node = load_scene(series_dir=tmp_path).node("pond-01")

    assert isinstance(node.sources["do"], Measured)
    assert node.disturbances[0].fault is Fault.FOULING
