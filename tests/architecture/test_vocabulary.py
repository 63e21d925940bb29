"""The names that a data file may use are those that the server understands."""

from __future__ import annotations

import pytest

from fleet_server.measurement.pipeline import CONVERSIONS
from fleet_server.measurement.quality import GROSS_RANGES
from fleet_server.wire.errors import WireError
from fleet_server.wire.senml import decode_pack, encode_pack
from hardware import vocabulary


def test_conversions_and_their_inputs_are_those_of_the_pipeline() -> None:
    assert {name: one.needs for name, one in CONVERSIONS.items()} == vocabulary.CONVERSIONS


def test_properties_and_their_units_are_those_that_the_server_judges() -> None:
    assert {name: one.unit for name, one in GROSS_RANGES.items()} == vocabulary.PROPERTIES


@pytest.mark.parametrize(
    "key", ["a", "t30", "a_1", "a" * 32, "", "a" * 33, "T", "3t", "_t", "t.min", "t min", "ü"]
)
def test_a_channel_key_is_what_the_wire_takes(key: str) -> None:
    payload = encode_pack(
        node_id="n-000001", time_utc_s=None, oldest=1, spool=1, seq=1, power_up=1, uptime_ms=1,
        readings=[(key, 1, None)],
    )  # fmt: skip
    try:
        is_taken = decode_pack(payload).readings[0][0] == key
    except WireError:
        is_taken = False
    assert (vocabulary.CHANNEL_KEY.fullmatch(key) is not None) is is_taken
