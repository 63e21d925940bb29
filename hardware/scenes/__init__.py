"""Scenes as data: which sites there are, which node stands where, and where each channel's truth comes from.

Lives here: reading and checking scene files and the measured series that they name. Not here: physics and probes
(`hardware/virtual_board/scene_truth.py`), which turn a scene into what a wire carries. Standard library and the
hardware catalogue only, because the server reads scenes too, to create their sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, radians, sin, sqrt
from pathlib import Path
from typing import Any

from hardware.catalogue import CatalogueError, NodeModel, load_node_model, load_sensor_type
from hardware.scenes.faults import FAULTS_OF_DRIVER, Fault
from hardware.scenes.series import (
    UNITS,
    Column,
    Rejection,
    SceneError,
    published_unit,
    read_series,
)
from hardware.strict_toml import StrictTable

__all__ = [
    "Computed",
    "Disturbance",
    "Measured",
    "Node",
    "Scene",
    "SceneError",
    "Site",
    "Synthetic",
    "load_scene",
    "scene_names",
]

DEFAULT_SCENE = "bochum_summer"
SERIES_SCENE = "real"
DEFAULT_NODE_COUNT = 12

# What a scene can work out where the file has no such column; the formula lives with the physics.
PERMITTIVITY_TOPP = "permittivity_topp"
COMPUTED_FORMULAS = frozenset({"oxygen_saturation_garcia_gordon", PERMITTIVITY_TOPP})

# Parameters of the physical models that a site may set; their meaning and defaults lie with the physics.
MODEL_PARAMETERS: Mapping[str, frozenset[str]] = {
    "tree": frozenset(
        {
            "air_entry_kpa",
            "campbell_b",
            "saturation",
            "unsealed",
            "uptake",
            "shade",
            "diffusivity_mm2_s",
        }
    ),
    "water": frozenset(
        {"depth_m", "production_mg_l_h", "respiration_mg_l_d", "reaeration_per_d", "shade"}
    ),
}

_HERE = Path(__file__).parent
_METRES_PER_DEGREE = 111_320.0
_GOLDEN_ANGLE_DEG = 137.507_764


@dataclass(frozen=True)
class Site:
    """A place measured. `details` is for people (species, note); `model` holds the physics' parameters."""

    id: str
    name: str
    kind: str
    latitude: float
    longitude: float
    altitude_m: float
    details: Mapping[str, str | int]
    model: Mapping[str, float]


@dataclass(frozen=True)
class Synthetic:
    """The channel's truth comes from the site's physical model."""


@dataclass(frozen=True)
class Measured:
    """The channel's truth is a measured column, shifted so that it ends now; `repeat`: played round and round."""

    column: Column
    repeat: bool


@dataclass(frozen=True)
class Computed:
    """The channel's truth is worked out from the node's other channels."""

    formula: str


Source = Synthetic | Measured | Computed


@dataclass(frozen=True)
class Disturbance:
    """A fault that comes back: on every `every_days`-th UTC day (`day` of them), from `from_h` for `hours`.

    Day n since 1970 is meant when n mod every_days = day, so it falls on the same times whenever a run starts.
    """

    keys: tuple[str, ...]
    fault: Fault
    strength: float
    every_days: int
    day: int
    from_h: float
    hours: float


@dataclass(frozen=True)
class Node:
    """One node of the scene: `label` names it at the bench; `sources` has every channel key of its model."""

    label: str
    model: str
    site: str
    sources: Mapping[str, Source]
    disturbances: tuple[Disturbance, ...]


@dataclass(frozen=True)
class Scene:
    """Sites, nodes and the seed of everything random in them; equal scenes give equal wires."""

    id: str
    title: str
    seed: int
    sites: tuple[Site, ...]
    nodes: tuple[Node, ...]

    def node(self, label: str) -> Node:
        """The node with this label. Raises SceneError when the scene has none."""
        for node in self.nodes:
            if node.label == label:
                return node
        raise SceneError(f"The scene {self.id} has no node {label}.")

    def site_of(self, label: str) -> Site:
        """The site that the node stands at. Raises SceneError when the scene has no such node."""
        wanted = self.node(label).site
        return next(site for site in self.sites if site.id == wanted)


def scene_names() -> tuple[str, ...]:
    """The scenes that come with the package, sorted."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def load_scene(
    path_or_name: str | Path | None = None,
    *,
    nodes: int | None = None,
    series_dir: Path | None = None,
    seed: int | None = None,
) -> Scene:
    """Read a scene, with the series that it names, and check all of it.

    Args:
        path_or_name: a TOML file or the name of one of ours. With `series_dir`, leaving it out (or naming the default
            scene or `real`) means `series_dir/scene.toml` where there is one, else `real`.
        nodes: how many nodes; without it those of the file. More than the file lists are generated where the file
            has a rule for it; a scene without that rule gives what it has.
        series_dir: the folder of measured files; without it they lie beside the scene's own file, in a folder of
            its name.
        seed: takes the place of the file's seed.

    Raises:
        SceneError: the scene or a series cannot be used; one sentence.
    """
    path = _scene_file(path_or_name, series_dir)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SceneError(f"The scene {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SceneError(f"The scene {path} is not a text in UTF-8.") from error
    if nodes is not None and nodes < 1:
        raise SceneError("A scene needs at least one node.")
    folder = series_dir if series_dir is not None else path.with_suffix("")
    scene = _parse(text, path, folder, nodes)
    return scene if seed is None else replace(scene, seed=seed)


def _scene_file(path_or_name: str | Path | None, series_dir: Path | None) -> Path:
    if series_dir is not None:
        if not series_dir.is_dir():
            raise SceneError(f"There is no folder {series_dir}.")
        if path_or_name in (None, DEFAULT_SCENE, SERIES_SCENE):
            own = series_dir / "scene.toml"
            return own if own.is_file() else _HERE / f"{SERIES_SCENE}.toml"
    wanted = str(path_or_name or DEFAULT_SCENE)
    if wanted in scene_names():
        if wanted == SERIES_SCENE and series_dir is None:
            raise SceneError(
                "The scene real needs the folder of its measured files (--series DIR)."
            )
        return _HERE / f"{wanted}.toml"
    if Path(wanted).is_file():
        return Path(wanted)
    raise SceneError(
        f"There is no scene {wanted}; it is a TOML file or one of {', '.join(scene_names())}."
    )


def _parse(text: str, path: Path, folder: Path, count: int | None) -> Scene:
    table = StrictTable.from_toml(text, path.name, SceneError)
    scene = Scene(
        id=table.text("id"),
        title=table.text("title"),
        seed=table.whole("seed"),
        sites=table.rows("site", _site, at_least=1),
        nodes=table.rows("node", lambda row: _node(row, folder), at_least=1),
    )
    rule = table.one("generate", _generate_rule) if table.has("generate") else None
    table.finish()
    _check(scene, path.name)
    if count is None:
        return scene
    if count > len(scene.nodes) and rule is not None:
        scene = _grow(scene, rule, count)
    nodes = scene.nodes[:count]
    used = {node.site for node in nodes}
    return replace(scene, nodes=nodes, sites=tuple(site for site in scene.sites if site.id in used))


def _site(table: StrictTable) -> Site:
    kind = table.text("kind")
    if kind not in ("tree", "water"):
        raise SceneError(f"{table.where}: kind must be tree or water, not {kind}.")
    latitude, longitude = table.number("latitude"), table.number("longitude")
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise SceneError(f"{table.where}: latitude and longitude are not a place on Earth.")
    model = table.mapping("model", (int, float), "a number")
    for name in model:
        if name not in MODEL_PARAMETERS[kind]:
            raise SceneError(f"{table.where}: a {kind} site has no parameter {name}.")
    return Site(
        id=table.text("id"),
        name=table.text("name"),
        kind=kind,
        latitude=latitude,
        longitude=longitude,
        altitude_m=table.number("altitude_m", 100.0),
        details=table.mapping("details", (str, int), "a text or a whole number"),
        model=model,
    )


def _node(table: StrictTable, folder: Path) -> Node:
    where = table.where
    try:
        model = load_node_model(table.text("model"))
    except CatalogueError as error:
        raise SceneError(f"{where}: {error}") from error
    series = table.raw("series")
    given = table.raw("channels")
    keys = [channel.key for channel in model.channels]
    sources: dict[str, Source] = dict.fromkeys(keys, Synthetic())
    for key, raw in given.items():
        if key not in keys:
            raise SceneError(f"{where}: node model {model.id} has no channel {key}.")
        if not isinstance(raw, dict):
            raise SceneError(f"{where}: channels.{key} must be a table.")
        channel = StrictTable({**series, **raw}, f"{where}: channels.{key}", SceneError)
        sources[key] = _source(channel, folder, model, key)
    return Node(
        label=table.text("label"),
        model=model.id,
        site=table.text("site"),
        sources=sources,
        disturbances=table.rows("disturbance", lambda row: _disturbance(row, model), at_least=0),
    )


def _source(table: StrictTable, folder: Path, model: NodeModel, key: str) -> Source:
    if table.has("computed"):
        formula = table.text("computed")
        if formula not in COMPUTED_FORMULAS:
            raise SceneError(f"{table.where}: the formula {formula} is not known.")
        return Computed(formula)
    channel = model.channel(key)
    quantity = load_sensor_type(model.slot_of(key).sensor_type).quantity(channel.property)
    unit = table.text("unit")
    column_name = table.text("column")
    file = folder / table.text("file")
    if published_unit(unit, where=f"{file.name}, column {column_name}") != channel.unit:
        raise SceneError(
            f"{file.name}, column {column_name}: {unit} cannot become {channel.unit} of channel {key}."
        )
    _, factor, offset = UNITS[unit]
    step_s = table.whole("step_s")
    if step_s < 1:
        raise SceneError(f"{table.where}: step_s must be at least 1.")
    column = Column(
        file=file,
        column=column_name,
        unit=unit,
        time_columns=table.texts("time_columns"),
        time_format=table.text("time_format"),
        utc_offset_h=table.number("utc_offset_h"),
        step_s=step_s,
        delimiter=table.text("delimiter", ","),
        missing=table.texts("missing", ("", "NA", "NaN")),
        flag_column=table.text("flag_column", ""),
        reject_flags=table.texts("reject_flags", ()),
        # What the probe cannot measure is as impossible as what the scene's writer rules out.
        minimum=max(table.number("minimum", float("-inf")), (quantity.minimum - offset) / factor),
        maximum=min(table.number("maximum", float("inf")), (quantity.maximum - offset) / factor),
        rejections=table.rows("reject", _rejection, at_least=0),
    )
    repeat = table.truth("repeat", default=True)
    table.finish()
    read_series(column)
    return Measured(column=column, repeat=repeat)


def _rejection(table: StrictTable) -> Rejection:
    return Rejection(start=table.text("from"), end=table.text("to"), why=table.text("why"))


def _disturbance(table: StrictTable, model: NodeModel) -> Disturbance:
    keys = table.texts("keys")
    name = table.text("fault")
    try:
        fault = Fault(name)
        drivers = {load_sensor_type(model.slot_of(key).sensor_type).driver for key in keys}
    except ValueError:
        raise SceneError(f"{table.where}: the fault {name} is not known.") from None
    except CatalogueError as error:
        raise SceneError(f"{table.where}: {error}") from error
    for driver in drivers:
        if fault not in FAULTS_OF_DRIVER[driver]:
            raise SceneError(f"{table.where}: a {driver} probe cannot have the fault {name}.")
    disturbance = Disturbance(
        keys=keys,
        fault=fault,
        strength=table.number("strength", 1.0),
        every_days=table.whole("every_days", 1),
        day=table.whole("day", 0),
        from_h=table.number("from_h"),
        hours=table.number("hours"),
    )
    if disturbance.every_days < 1 or not 0 <= disturbance.day < disturbance.every_days:
        raise SceneError(f"{table.where}: day must be from 0 to every_days − 1.")
    if not 0 <= disturbance.from_h < 24 or not 0 < disturbance.hours <= 24:
        raise SceneError(f"{table.where}: from_h must be from 0 to 24 and hours from 0 to 24.")
    return disturbance


def _check(scene: Scene, name: str) -> None:
    site_kinds: dict[str, str] = {}
    for site in scene.sites:
        if site.id in site_kinds:
            raise SceneError(f"{name}: the site {site.id} is listed twice.")
        site_kinds[site.id] = site.kind
    labels: set[str] = set()
    for node in scene.nodes:
        if node.label in labels:
            raise SceneError(f"{name}: the node {node.label} is listed twice.")
        labels.add(node.label)
        if node.site not in site_kinds:
            raise SceneError(f"{name}: node {node.label} stands at {node.site}, which is no site.")
        wanted = load_node_model(node.model).site_kind
        if site_kinds[node.site] != wanted:
            raise SceneError(
                f"{name}: node {node.label} is for a {wanted} site, but {node.site} is "
                f"{site_kinds[node.site]}."
            )


@dataclass(frozen=True)
class _GenerateRule:
    models: tuple[str, ...]
    names: dict[str, Any]
    radius_m: float


def _generate_rule(table: StrictTable) -> _GenerateRule:
    return _GenerateRule(
        models=table.texts("models"),
        names=table.mapping("names", str, "a text"),
        radius_m=table.number("radius_m"),
    )


def _grow(scene: Scene, rule: _GenerateRule, count: int) -> Scene:
    """Further nodes by a rule that knows only their number: models in turn, places on a spiral round the others.

    A new site takes the physics' parameters of a listed site of its kind, in turn; its own seed makes it differ.
    """
    sites, nodes = list(scene.sites), list(scene.nodes)
    templates = {
        kind: [site for site in scene.sites if site.kind == kind] for kind in ("tree", "water")
    }
    latitude = sum(site.latitude for site in scene.sites) / len(scene.sites)
    longitude = sum(site.longitude for site in scene.sites) / len(scene.sites)
    for index in range(len(nodes), count):
        model = load_node_model(rule.models[index % len(rule.models)])
        kind = model.site_kind
        number = sum(site.kind == kind for site in sites) + 1
        template = templates[kind][number % len(templates[kind])]
        distance_m = rule.radius_m * sqrt(((index - len(scene.nodes)) % 997 + 1) / 997)
        angle = radians(_GOLDEN_ANGLE_DEG * index)
        site = replace(
            template,
            id=f"{kind}-site-{number:02d}",
            name=str(rule.names[kind]).format(number=number),
            latitude=round(latitude + distance_m * cos(angle) / _METRES_PER_DEGREE, 6),
            longitude=round(
                longitude + distance_m * sin(angle) / (_METRES_PER_DEGREE * cos(radians(latitude))),
                6,
            ),
        )
        label = f"{'tree' if kind == 'tree' else 'pond'}-{number:02d}"
        sources: dict[str, Source] = {channel.key: Synthetic() for channel in model.channels}
        sites.append(site)
        nodes.append(
            Node(label=label, model=model.id, site=site.id, sources=sources, disturbances=())
        )
    return replace(scene, sites=tuple(sites), nodes=tuple(nodes))
