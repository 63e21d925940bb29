"""The resource path of a SensorThings request (OGC 18-088, chapter 9.2), parsed strictly. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet_server.errors import NotFound

MAX_ID = 2**53 - 1
"""The largest whole number that every client keeps exactly (JavaScript, QGIS)."""

NAVIGATION: dict[str, dict[str, tuple[str, bool]]] = {
    "Things": {
        "Locations": ("Locations", True),
        "HistoricalLocations": ("HistoricalLocations", True),
        "Datastreams": ("Datastreams", True),
    },
    "Locations": {
        "Things": ("Things", True),
        "HistoricalLocations": ("HistoricalLocations", True),
    },
    "HistoricalLocations": {"Thing": ("Things", False), "Locations": ("Locations", True)},
    "Datastreams": {
        "Thing": ("Things", False),
        "Sensor": ("Sensors", False),
        "ObservedProperty": ("ObservedProperties", False),
        "Observations": ("Observations", True),
    },
    "Sensors": {"Datastreams": ("Datastreams", True)},
    "ObservedProperties": {"Datastreams": ("Datastreams", True)},
    "Observations": {
        "Datastream": ("Datastreams", False),
        "FeatureOfInterest": ("FeaturesOfInterest", False),
    },
    "FeaturesOfInterest": {"Observations": ("Observations", True)},
}
"""Entity set → its navigation properties: name → (target set, leads to many)."""

ENTITY_SETS = tuple(NAVIGATION)

_NAMED = ("name", "description")
PROPERTIES: dict[str, tuple[str, ...]] = {
    "Things": (*_NAMED, "properties"),
    "Locations": (*_NAMED, "encodingType", "location", "properties"),
    "HistoricalLocations": ("time",),
    "Datastreams": (
        *_NAMED,
        "observationType",
        "unitOfMeasurement",
        "observedArea",
        "phenomenonTime",
        "resultTime",
        "properties",
    ),
    "Sensors": (*_NAMED, "encodingType", "metadata", "properties"),
    "ObservedProperties": (*_NAMED, "definition", "properties"),
    "Observations": (
        "phenomenonTime",
        "resultTime",
        "result",
        "resultQuality",
        "validTime",
        "parameters",
    ),
    "FeaturesOfInterest": (*_NAMED, "encodingType", "feature", "properties"),
}
"""Entity set → the properties that the standard gives it (OGC 18-088, 8.2); the optional ones are not on every entity."""


@dataclass(frozen=True)
class Step:
    """One resolved segment: an entity set reached by `name`, perhaps narrowed to one id."""

    name: str
    entity_set: str
    is_many: bool
    entity_id: int | None = None


@dataclass(frozen=True)
class ResourcePath:
    """Steps from the service root; `reference_only` for `/$ref`; `property_name` for `/name` and `/name/$value`."""

    steps: tuple[Step, ...]
    reference_only: bool = False
    property_name: str | None = None
    is_raw_value: bool = False

    @property
    def target(self) -> Step:
        return self.steps[-1]

    @property
    def is_collection(self) -> bool:
        return self.target.is_many and self.target.entity_id is None


_SEGMENT = re.compile(r"([A-Za-z]+)(?:\((-?[0-9]{1,20})\))?")


def parse_path(path: str) -> ResourcePath:
    """The resource behind `v1.1/…`.

    Raises:
        NotFound: nothing can live at this path.
    """
    segments = [segment for segment in path.strip("/").split("/") if segment]
    reference_only = segments[-1:] == ["$ref"]
    is_raw_value = segments[-1:] == ["$value"]
    if reference_only or is_raw_value:
        segments = segments[:-1]
    steps: list[Step] = []
    property_name = None
    for position, segment in enumerate(segments):
        step = _step(segment, steps[-1] if steps else None)
        if step is None and steps and position == len(segments) - 1 and segment.isidentifier():
            property_name = segment
            break
        if step is None:
            raise NotFound(_nothing_at(path))
        steps.append(step)
    found = ResourcePath(tuple(steps), reference_only, property_name, is_raw_value)
    leads_somewhere = (
        steps
        and not (property_name and (found.is_collection or reference_only))
        and not (is_raw_value and not property_name)
    )
    if not leads_somewhere:
        raise NotFound(_nothing_at(path))
    return found


def _step(segment: str, before: Step | None) -> Step | None:
    found = _SEGMENT.fullmatch(segment)
    if not found:
        return None
    name, entity_id = found[1], None if found[2] is None else int(found[2])
    if before is None:
        return Step(name, name, True, entity_id) if name in NAVIGATION else None
    if before.is_many and before.entity_id is None:
        return None  # a collection must be narrowed to one entity before it leads further
    target = NAVIGATION[before.entity_set].get(name)
    if target is None or (entity_id is not None and not target[1]):
        return None
    return Step(name, target[0], target[1], entity_id)


def _nothing_at(path: str) -> str:
    shown = path if len(path) <= 80 else path[:77] + "…"
    return (
        f"There is nothing at {shown!r}; the service begins at /v1.1 with {', '.join(ENTITY_SETS)}."
    )
