"""One reading, all the way: from the value that the scene puts in to the observation that a city reads, and back by hand."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import cbor2
import pytest
import requests
from system import lived_folder, lived_summer, run_command, serving

import hardware.scenes
from fleet_server import db
from fleet_server.models import Pack
from fleet_server.settings import CONFIG_VARIABLE, load_settings
from hardware.catalogue import load_node_model, load_sensor_type
from hardware.virtual_board.ledger import packs_in_segment, spool_on_flash
from hardware.virtual_board.scene_truth import Truth

# U = 2·u covers 95 % when all is normal; what a probe's data sheet leaves open costs the rest.
SHARE_WITHIN_U = 0.93
# What measured inputs add (temperature, resistor) is less than a quarter of what the probe itself is off (seen: up to 1.18).
CATALOGUE_FACTOR = 1.25
# Where nobody measures what a formula needs, its part is stated beside the probe's own (docs/measurement/), as a share of the value.
ASSUMED_U_RELATIVE = {
    # the air's pressure: 995 ± 35 hPa, rectangular
    "oxygen_of_saturation": 35 / 995 / math.sqrt(3),
    # the speed of sound that the module reckons with, 344 ± 4 m/s, and the air's humidity, 0.7 %: both rectangular
    "ultrasonic_level": math.hypot(4 / 344, 0.007) / math.sqrt(3),
}
# Parts are built somewhat better than their data sheets promise: their limits are taken as rectangular distributions (÷ √3 = 0.58
# of the limit), the virtual ones stay within 0.6 to 0.8 of it.
SCATTER_U = (0.45, 1.1)
PROBES_AT_LEAST = 20
QUANTITIES = {"r", "ref", "t", "sat", "do", "tw", "bat"}
PAGE = 1000
FLAG_GOOD = 1
SERIES = Path(
    os.environ.get(
        "STADTSENSOR_SERIES", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    )
)
DAY_S = 86_400
SENML_NAME, SENML_VALUE = 0, 2


@dataclass(frozen=True)
class Lived:
    """A demo's folder, its pages, its observations as the feed gives them, and its scene's truth."""

    data: Path
    done: Mapping[str, Any]
    observations: list[dict[str, Any]]
    truth: Truth
    labels: Mapping[str, str]
    """Node id → the node's label in the scene."""


@contextmanager
def _observed(data: Path, scene: hardware.scenes.Scene) -> Iterator[Lived]:
    """What became of a demo's folder (`system.lived_folder`)."""
    series_end_s = int((data / "nodes" / "series_end_utc_s").read_text())
    nodes = [json.loads(path.read_bytes()) for path in data.glob("nodes/*/node.json")]
    with serving(data) as url:
        yield Lived(
            data,
            json.loads((data.parent / "done.json").read_bytes()),
            _all_observations(url),
            Truth(scene, now_utc_s=series_end_s),
            {node["node_id"]: node["label"] for node in nodes},
        )


def _get(url: str) -> dict[str, Any]:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200, (url, answer.text)
    content: dict[str, Any] = answer.json()
    return content


def _all_observations(url: str) -> list[dict[str, Any]]:
    page = _get(f"{url}/v1.1/Observations?$count=true&$top={PAGE}")
    count, found = page["@iot.count"], page["value"]
    while "@iot.nextLink" in page:
        page = _get(page["@iot.nextLink"])
        found += page["value"]
    assert len(found) == count
    assert len({one["@iot.id"] for one in found}) == count
    return found


@pytest.fixture(scope="module")
def summer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    with _observed(
        lived_summer(tmp_path_factory), hardware.scenes.load_scene(nodes=4, seed=1)
    ) as lived:
        yield lived


def _channel(observation: Mapping[str, Any]) -> tuple[str, str, float]:
    """(node id, channel key, sampling time) of an observation."""
    parameters = observation["parameters"]
    sampled = datetime.fromisoformat(observation["phenomenonTime"])
    return parameters["nodeId"], parameters["channel"], sampled.timestamp()


# --- forward


@dataclass(frozen=True)
class Judged:
    """One undisturbed reading: how far it is off, how far it says it may be, and how far its probe's data sheet says."""

    label: str
    key: str
    error: float
    """Infinite where there is no value."""
    stated: float
    """U."""
    by_catalogue: float
    """k times the standard uncertainty of the probe and of what its formula assumes; what measured inputs add is not in it."""

    @property
    def name(self) -> str:
        """The quantity, whatever the depth."""
        return self.key.rstrip("0123456789")


def _judge(lived: Lived) -> tuple[list[Judged], int]:
    """All undisturbed readings, and how many were disturbed."""
    judged, disturbed = [], 0
    for observation in lived.observations:
        node_id, key, sampled_s = _channel(observation)
        label = lived.labels[node_id]
        if lived.truth.is_disturbed(label, key, 0, sampled_s):
            disturbed += 1
            continue
        if key.startswith("wipe"):
            continue  # the node's own affair
        true = lived.truth.value(label, key, 0, sampled_s)
        value, quality = observation["result"], observation["resultQuality"]
        if value is None or true is None:
            judged.append(Judged(label, key, math.inf, 0.0, 0.0))
            continue
        model = load_node_model(lived.truth.scene.node(label).model)
        sensor_type = load_sensor_type(model.slot_of(key).sensor_type)
        channel = model.channel(key)
        accuracy = sensor_type.quantity(channel.property).accuracy
        assumed = ASSUMED_U_RELATIVE.get(channel.conversion, 0.0)
        u = math.hypot(accuracy.absolute, accuracy.relative * value, assumed * value)
        error, stated, by_catalogue = abs(value - true), quality["U"], quality["k"] * u
        judged.append(Judged(label, key, error, stated, by_catalogue))
    return judged, disturbed


def _is_wholly_disturbed_once(lived: Lived) -> bool:
    """Whether a disturbance began and ended while it was sampled; every second day half an hour sees a day without any behind it."""
    sampled = [_channel(one)[2] for one in lived.observations]
    return any(
        min(sampled) <= begin_s and begin_s + one.hours * 3600 <= max(sampled)
        for node in lived.truth.scene.nodes
        for one in node.disturbances
        for day in range(int(min(sampled) // DAY_S), int(max(sampled) // DAY_S) + 1)
        if day % one.every_days == one.day
        for begin_s in [day * DAY_S + one.from_h * 3600]
    )


def _faults(judged: Sequence[Judged]) -> dict[str, set[str]]:
    """Per quantity, what is wrong with the uncertainty that it states."""
    faults: dict[str, set[str]] = {}
    for name in {one.name for one in judged}:
        some = [one for one in judged if one.name == name]
        within = sum(one.error <= one.stated for one in some) / len(some)
        with_value = [one for one in some if one.by_catalogue]
        ratios = [one.stated / one.by_catalogue for one in with_value]
        # No quantity hides behind the others, and no reading behind its quantity.
        faults[name] = {
            what
            for what, is_so in {
                "too often beyond U": within < SHARE_WITHIN_U,
                "U is more than the probe's": any(
                    one.stated > CATALOGUE_FACTOR * one.by_catalogue for one in with_value
                ),
                "U is less than the probe's": min(ratios) < 1 / CATALOGUE_FACTOR,
            }.items()
            if is_so
        }
        print(f"{name}: {within:.3f} within U; U/catalogue {min(ratios):.2f} to {max(ratios):.2f}")  # noqa: T201 - worth reading
    return faults


def _scatter(judged: Sequence[Judged]) -> float:
    """How far probes are off in units of u, as the root of the mean square over probes: they hardly scatter in themselves."""
    by_probe: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in judged:
        if one.stated:
            by_probe[one.label, one.key].append(2 * one.error / one.stated)
    squares = [sum(z * z for z in some) / len(some) for some in by_probe.values()]
    assert len(squares) >= PROBES_AT_LEAST
    return math.sqrt(sum(squares) / len(squares))


def _scaled(judged: Sequence[Judged], factor: float) -> list[Judged]:
    return [replace(one, stated=factor * one.stated) for one in judged]


def test_undisturbed_readings_lie_within_their_uncertainty_of_the_truth(summer: Lived) -> None:
    judged, disturbed = _judge(summer)
    assert len(judged) > 1500
    assert disturbed > 0 or not _is_wholly_disturbed_once(summer)
    faults = _faults(judged)
    assert faults.keys() == QUANTITIES
    assert not any(faults.values()), faults


def test_probes_are_as_far_off_as_their_uncertainty_says(summer: Lived) -> None:
    """Neither a fraction of it, which would make it a lie of caution, nor a multiple."""
    judged, _ = _judge(summer)
    scatter = _scatter(judged)
    print(f"probes are off by {scatter:.2f} u")  # noqa: T201 - the figure is worth reading
    assert SCATTER_U[0] < scatter < SCATTER_U[1]
    assert _scatter(_scaled(judged, 2.0)) < SCATTER_U[0]
    assert _scatter(_scaled(judged, 0.5)) > SCATTER_U[1]


@pytest.mark.parametrize(
    ("factor", "seen"), [(2.0, "U is more than the probe's"), (0.5, "U is less than the probe's")]
)
def test_uncertainty_stated_twice_or_half_as_large_is_seen_for_every_quantity(
    summer: Lived, factor: float, seen: str
) -> None:
    judged, _ = _judge(summer)
    faults = _faults(_scaled(judged, factor))
    assert faults.keys() == QUANTITIES
    assert all(seen in of_one for of_one in faults.values())


def test_every_reading_of_a_deployed_node_is_an_observation(summer: Lived) -> None:
    assert len(summer.observations) == summer.done["observations"] == summer.done["readings"]


# --- back


@pytest.mark.parametrize("key", ["r30", "t60", "sat", "do", "tw", "bat"])
def test_an_observation_is_followed_back_by_hand(summer: Lived, key: str) -> None:
    observation = next(
        one
        for one in summer.observations
        if one["parameters"]["channel"] == key and one["resultQuality"]["flag"] == FLAG_GOOD
    )
    parameters = observation["parameters"]
    pack = _stored_pack(summer.data, parameters["packId"])
    readings = _by_hand(pack.payload, parameters["nodeId"])
    assert (readings["_spool"], readings["_seq"]) == (parameters["spool"], parameters["seq"])
    assert readings[key] == parameters["rawResult"]
    assert _is_on_flash(summer, pack)

    stream = _get(observation["@iot.selfLink"] + "/Datastream?$expand=Sensor,Thing")
    calibration = _calibration(stream["Sensor"], parameters["calibrationId"])
    assert calibration["property"] == stream["properties"]["property"]
    converted, u_converted = _convert_by_hand(key, readings)
    value = calibration["offset"] + calibration["slope"] * converted
    assert observation["result"] == pytest.approx(value, rel=1e-9)
    u = math.hypot(calibration["uAbsolute"], calibration["uRelative"] * value)
    quality = observation["resultQuality"]
    assert quality["U"] == pytest.approx(quality["k"] * quality["u"])
    if u_converted is None:
        # The formula's inputs have an uncertainty of their own, which comes on top.
        assert quality["u"] >= u * (1 - 1e-6)
    else:
        assert quality["u"] == pytest.approx(math.hypot(u, u_converted), rel=1e-6)


def _stored_pack(data: Path, pack_id: int) -> Pack:
    settings = load_settings({CONFIG_VARIABLE: str(data / "fleet.toml")})
    engine = db.make_engine(settings.database_url)
    try:
        with db.session_factory(engine)() as session:
            pack = session.get(Pack, pack_id)
            assert pack is not None
            return pack
    finally:
        engine.dispose()


def _by_hand(payload: bytes, node_id: str) -> dict[str, Any]:
    """The values of a pack by name, with nothing but RFC 8428 and a CBOR library."""
    envelope, *records = cbor2.loads(payload)
    assert envelope[-2] == f"{node_id}:"
    return {record[SENML_NAME]: record.get(SENML_VALUE) for record in records}


def _is_on_flash(lived: Lived, pack: Pack) -> bool:
    """Whether the node's flash still holds this pack, with the body that was received."""
    flash = lived.data / "nodes" / lived.labels[pack.node_id] / "flash.bin"
    with spool_on_flash(flash) as spool:
        segments = [name for name in spool.sizes() if name.endswith(".seg")]
        for name in segments:
            for kept in packs_in_segment(spool.read(name)):
                if kept.seq == pack.seq:
                    return pack.payload.endswith(kept.body)
    return False


def _calibration(sensor: Mapping[str, Any], calibration_id: int) -> Mapping[str, Any]:
    metadata = sensor["metadata"]
    calibrations = (json.loads(metadata) if isinstance(metadata, str) else metadata)["calibrations"]
    found: Mapping[str, Any] = next(
        one for one in calibrations if one["calibrationId"] == calibration_id
    )
    return found


def _convert_by_hand(key: str, readings: Mapping[str, Any]) -> tuple[float, float | None]:
    """The raw reading in the published unit, and what the conversion adds to the uncertainty (None: something)."""
    raw = readings[key]
    if key.startswith("t") and key != "tw":
        # A step of 1/16 °C, anywhere in which the temperature may lie: a rectangular distribution (GUM 4.3.7).
        return raw / 16, 1 / 16 / math.sqrt(12)
    if not key.startswith("r"):
        return raw, 0.0
    temperature_c = readings["t" + key[1:]] / 16
    done = run_command(
        "fleet", "convert", "watermark_tension", f"resistance_ohm={raw}",
        f"temperature_c={temperature_c}", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["value"], None


# --- measured series


# Those that measure what no other does; of the rest some other has every quantity.
_FEW = ("soil-01", "pond-02", "pond-03", "level-01")


@pytest.mark.parametrize(
    "beside",
    [_FEW, pytest.param(None, marks=pytest.mark.nightly)],
    ids=["few models", "every model"],
)
def test_a_series_of_ones_own_is_measured_again_and_every_probe_within_its_uncertainty(
    tmp_path_factory: pytest.TempPathFactory, beside: Sequence[str] | None
) -> None:
    """Beside the nodes of the series one of every model: one demo for both, because starting it is what takes the time."""
    scenes = Path(hardware.scenes.__file__).parent
    series = tmp_path_factory.mktemp("series")
    every = (scenes / "every_probe.toml").read_text().partition("[[site]]")[2]
    if beside is not None:
        sites, *all_nodes = every.split("[[node]]")
        few = [node for node in all_nodes if any(f'"{label}"' in node for label in beside)]
        every = "[[node]]".join([sites, *few])
    for label in ("tree-01", "pond-01"):
        every = every.replace(f'"{label}"', f'"every-{label}"')
    small = (scenes / "small.toml").read_text()
    (series / "scene.toml").write_text(f"{small}\n[[site]]{every}")
    for file in (scenes / "small").iterdir():
        (series / file.name).write_bytes(file.read_bytes())
    nodes = 2 + (7 if beside is None else len(beside))
    properties = _check_against_series(tmp_path_factory, f"small-{nodes}", series, nodes=nodes)
    assert {"sat", "do", "tw", "r", "t", "v", "e", "tu", "lvl", "ph", "ec"} <= properties


@pytest.mark.nightly
@pytest.mark.needs_series
@pytest.mark.skipif(
    not (SERIES / "nerrs_grand_bay_2021_07.csv").is_file(),
    reason="the measured series (STADTSENSOR_SERIES, or shared/data beside the checkout) are not here",
)
def test_the_measured_waters_and_soils_are_measured_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    properties = _check_against_series(tmp_path_factory, "measured", SERIES, nodes=4)
    assert {"sat", "do", "tw", "v", "e"} <= properties


def _check_against_series(
    factory: pytest.TempPathFactory, name: str, series: Path, *, nodes: int
) -> set[str]:
    """Live through a day of a series' scene; the names of the channels that were compared with its truth."""
    data = lived_folder(factory, name, "--days", "1", "--series", str(series))
    with _observed(data, hardware.scenes.load_scene(series_dir=series)) as lived:
        judged, _ = _judge(lived)
    assert len(lived.labels) == nodes
    assert lived.done["packs_missing"] == lived.done["packs_duplicate"] == 0
    faults = _faults(judged)
    assert not any(faults.values()), faults
    return set(faults)
