"""What is true at a scene's sites at any moment, in published units, and when a probe there is disturbed.

The judge of every end-to-end comparison: tests and tools ask here what a calibrated observation should have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache

from hardware.catalogue import Channel, NodeModel, load_node_model
from hardware.scenes import (
    PERMITTIVITY_TOPP,
    Computed,
    Disturbance,
    Measured,
    Scene,
    SceneError,
    Site,
)
from hardware.scenes.series import read_series
from hardware.virtual_board.dice import between
from hardware.virtual_board.probes.faults import ActiveFault
from hardware.virtual_board.scene_models import (
    DAY_S,
    LAYERS_CM,
    HourlyStates,
    Soil,
    Water,
    air_temperature_c,
    battery_mv,
    breathe_water,
    bulk_conductivity_us_cm,
    conductivity_25_us_cm,
    dry_soil,
    moisture_index,
    oxygen_at_saturation_mg_l,
    permittivity_of,
    ph_of_water,
    soil_temperature_c,
    turbidity_fnu,
    water_level_m,
)

# A node samples over up to a minute (turbidity after its wiper); what touches this stretch counts as disturbed.
_SAMPLING_TAKES_S = 60

# How long soil and water remember: the deep soil weeks, a pond days.
_SOIL_SPIN_UP_DAYS, _WATER_SPIN_UP_DAYS = 64, 20

_REFERENCE_OHM = 10_000.0
_PRESSURE_PROBE_LIES_M = 2.4  # below the face of an ultrasonic probe
_FLOATS_AT_M = -1.4  # where a level node's float switch hangs, below the ultrasonic probe

_BATTERY_LIFE_DAYS = {"tree": 420.0, "water": 75.0}

# Parameters that every site's own luck changes a little, so that sites with the same figures still differ.
_LUCKY = frozenset(
    {
        "unsealed",
        "uptake",
        "production_mg_l_h",
        "respiration_mg_l_d",
        "reaeration_per_d",
    }
)


class Truth:
    """The truth of one scene. `now_utc_s` is the moment at which measured series end; synthetic truth ignores it."""

    def __init__(self, scene: Scene, *, now_utc_s: int) -> None:
        self.scene = scene
        self.now_utc_s = now_utc_s
        self._sites: dict[str, _SiteTruth] = {}
        self._shifts: dict[str, tuple[int, int, int]] = {}

    def value(self, label: str, key_or_property: str, depth_cm: int, utc_s: float) -> float | None:
        """What a perfect probe would give; `None` where a measured series has no valid value.

        Args:
            label: the node's label in the scene.
            key_or_property: a channel key (`t30`; its depth is then known) or a property (`soil_temperature`).
            depth_cm: depth of the property; 0 where there is none.
            utc_s: seconds since 1970.

        Raises:
            SceneError: the scene has no such node or the node no such channel.
        """
        return self._value(label, self._channel(label, key_or_property, depth_cm), utc_s)

    def is_disturbed(self, label: str, key_or_property: str, depth_cm: int, utc_s: float) -> bool:
        """Whether a reading sampled at `utc_s` may differ from the truth, or be missing, for a reason of the scene's.

        A channel whose conversion needs another one (tension needs the soil's temperature) is disturbed with it.
        """
        channel = self._channel(label, key_or_property, depth_cm)
        model = self._model(label)
        keys = {channel.key, *channel.needs.values()}
        slots = {model.slot_of(key).id for key in keys}
        window = (utc_s - _SAMPLING_TAKES_S, utc_s + _SAMPLING_TAKES_S)
        for disturbance in self.scene.node(label).disturbances:
            touched = {model.slot_of(key).id for key in disturbance.keys}
            if touched & slots and _overlaps(disturbance, *window):
                return True
        return any(
            self.slot_value(label, key, moment) is None
            for key in keys
            for moment in (utc_s, *window)
        )

    def slot_value(self, label: str, key: str, utc_s: float) -> float | None:
        """The truth of one channel, or `None` when any channel of its probe has none: one cable, one answer."""
        slot = self._model(label).slot_of(key)
        values = {channel.key: self._value(label, channel, utc_s) for channel in slot.channels}
        return None if None in values.values() else values[key]

    def active_faults(self, label: str, key: str, utc_s: float) -> tuple[ActiveFault, ...]:
        """The scene's faults on the probe of channel `key` at this moment."""
        slot = self._model(label).slot_of(key)
        active = []
        for disturbance in self.scene.node(label).disturbances:
            if any(channel.key in disturbance.keys for channel in slot.channels):
                start_s = _start_of(disturbance, utc_s)
                if start_s is not None:
                    active.append(ActiveFault(disturbance.fault, disturbance.strength, start_s))
        return tuple(active)

    def _channel(self, label: str, key_or_property: str, depth_cm: int) -> Channel:
        for channel in self._model(label).channels:
            if channel.key == key_or_property or (
                channel.property == key_or_property and channel.depth_cm == depth_cm
            ):
                return channel
        raise SceneError(f"Node {label} has no {key_or_property} at {depth_cm} cm.")

    def _model(self, label: str) -> NodeModel:
        return load_node_model(self.scene.node(label).model)

    def _value(self, label: str, channel: Channel, utc_s: float) -> float | None:
        source = self.scene.node(label).sources[channel.key]
        if isinstance(source, Measured):
            return self._measured(label, source, utc_s)
        if isinstance(source, Computed):
            return self._computed(label, source, channel, utc_s)
        site = self.scene.site_of(label)
        if site.id not in self._sites:
            self._sites[site.id] = _SiteTruth(site, self.scene.seed)
        return self._sites[site.id].value(label, channel, utc_s)

    def _measured(self, label: str, source: Measured, utc_s: float) -> float | None:
        shift_s, first_s, span_s = self._shift(label)
        series_s = utc_s - shift_s
        if source.repeat:
            series_s = first_s + (series_s - first_s) % span_s
        return read_series(source.column).at(series_s)

    def _shift(self, label: str) -> tuple[int, int, int]:
        """(shift, first, span) of a node's series: its last row falls on the last full native step before now."""
        if label not in self._shifts:
            sources = self.scene.node(label).sources.values()
            columns = [read_series(one.column) for one in sources if isinstance(one, Measured)]
            first_s = min(column.times_s[0] for column in columns)
            last_s = max(column.times_s[-1] for column in columns)
            step_s = max(column.step_s for column in columns)
            shift_s = (self.now_utc_s - last_s) // step_s * step_s
            self._shifts[label] = (shift_s, first_s, last_s - first_s + step_s)
        return self._shifts[label]

    def _computed(
        self, label: str, source: Computed, channel: Channel, utc_s: float
    ) -> float | None:
        if source.formula == PERMITTIVITY_TOPP:
            water = self.value(label, "soil_water_content", channel.depth_cm, utc_s)
            return None if water is None else permittivity_of(water)
        return self._oxygen_saturation(label, utc_s)

    def _oxygen_saturation(self, label: str, utc_s: float) -> float | None:
        oxygen = self.value(label, "dissolved_oxygen", 0, utc_s)
        temperature_c = self.value(label, "water_temperature", 0, utc_s)
        if oxygen is None or temperature_c is None:
            return None
        altitude_m = self.scene.site_of(label).altitude_m
        return 100 * oxygen / oxygen_at_saturation_mg_l(temperature_c, altitude_m)


class _SiteTruth:
    """The synthetic truth of one site."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._seed = seed
        parameters = _with_luck(site, seed)
        if site.kind == "tree":
            self._soil = Soil(**parameters)
            self._states = HourlyStates(
                lambda hours: dry_soil(self._soil, seed, site.latitude, site.longitude, hours),
                _SOIL_SPIN_UP_DAYS,
            )
        else:
            self._water = Water(**parameters)
            place = (site.latitude, site.longitude, site.altitude_m)
            self._states = HourlyStates(
                lambda hours: breathe_water(self._water, seed, place, hours), _WATER_SPIN_UP_DAYS
            )

    def value(self, label: str, channel: Channel, utc_s: float) -> float:
        match channel.property:
            case "soil_water_tension":
                return _at_depth(self._states.at(utc_s), channel.depth_cm)
            case "soil_water_content":
                return self._water_content(channel.depth_cm, utc_s)
            case "soil_permittivity":
                return permittivity_of(self._water_content(channel.depth_cm, utc_s))
            case "soil_conductivity":
                return bulk_conductivity_us_cm(self._water_content(channel.depth_cm, utc_s))
            case "soil_moisture_index":
                return moisture_index(self._water_content(channel.depth_cm, utc_s))
            case "reference_resistance":
                return _REFERENCE_OHM
            case "soil_temperature":
                return soil_temperature_c(self._soil, self._seed, channel.depth_cm, utc_s)
            case "water_temperature":
                return self._states.at(utc_s)[0]
            case "dissolved_oxygen":
                return self._states.at(utc_s)[1]
            case "oxygen_saturation":
                temperature_c, oxygen = self._states.at(utc_s)
                full = oxygen_at_saturation_mg_l(temperature_c, self._site.altitude_m)
                return 100 * oxygen / full
            case "ph":
                temperature_c, oxygen = self._states.at(utc_s)
                full = oxygen_at_saturation_mg_l(temperature_c, self._site.altitude_m)
                return ph_of_water(oxygen, full)
            case "turbidity":
                return turbidity_fnu(self._seed, utc_s)
            case "conductivity_25":
                return conductivity_25_us_cm(self._seed, utc_s)
            case "wiper_age":
                # The node's own affair: no scene knows when it had the wiper turn.
                return 0.0
            case "air_temperature":
                return air_temperature_c(self._seed, utc_s)
            case "water_level" if channel.conversion == "current_loop":
                return _PRESSURE_PROBE_LIES_M + water_level_m(self._seed, utc_s)
            case "water_level":
                return water_level_m(self._seed, utc_s)
            case "contact_closed":
                return float(water_level_m(self._seed, utc_s) >= _FLOATS_AT_M)
            case "battery_voltage":
                life_days = _BATTERY_LIFE_DAYS[self._site.kind]
                air_c = air_temperature_c(self._seed, utc_s)
                return battery_mv(self._seed, label, life_days, air_c, utc_s)
        raise SceneError(f"There is no synthetic model of {channel.property}.")

    def _water_content(self, depth_cm: int, utc_s: float) -> float:
        return self._soil.water_content(_at_depth(self._states.at(utc_s), depth_cm))


def _with_luck(site: Site, seed: int) -> Mapping[str, float]:
    physics = Soil if site.kind == "tree" else Water
    parameters = {one.name: float(str(one.default)) for one in fields(physics)} | dict(site.model)
    for name in parameters:
        if name in _LUCKY:
            parameters[name] *= between(0.9, 1.1, seed, site.id, name)
    return parameters


def _at_depth(layers: tuple[float, ...], depth_cm: int) -> float:
    """The value at a depth: on the line between the layers' centres, the outermost beyond them."""
    if depth_cm <= LAYERS_CM[0]:
        return layers[0]
    for index in range(len(LAYERS_CM) - 1):
        upper, lower = LAYERS_CM[index], LAYERS_CM[index + 1]
        if depth_cm <= lower:
            part = (depth_cm - upper) / (lower - upper)
            return layers[index] * (1 - part) + layers[index + 1] * part
    return layers[-1]


@lru_cache(maxsize=4096)
def _windows(disturbance: Disturbance, day: int) -> tuple[int, int] | None:
    if day % disturbance.every_days != disturbance.day:
        return None
    start_s = day * DAY_S + round(disturbance.from_h * 3600)
    return start_s, start_s + round(disturbance.hours * 3600)


def _start_of(disturbance: Disturbance, utc_s: float) -> int | None:
    """When the window that covers this moment began. A window may run over midnight, hence yesterday's too."""
    for day in (int(utc_s // DAY_S), int(utc_s // DAY_S) - 1):
        window = _windows(disturbance, day)
        if window is not None and window[0] <= utc_s < window[1]:
            return window[0]
    return None


def _overlaps(disturbance: Disturbance, start_s: float, end_s: float) -> bool:
    # Windows are far longer than a sampling: one that touches it covers its start, its end or its middle.
    return any(
        _start_of(disturbance, moment) is not None
        for moment in (start_s, (start_s + end_s) / 2, end_s)
    )
