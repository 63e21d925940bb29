"""The JSON Schema of a node model and the table of settings say the same, as far as a schema can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fleet_server.services.node_settings import channels_of
from fleet_server.wire import configuration
from fleet_server.wire.configuration import find_fault, find_fault_of_values
from fleet_server.wire.configuration_schema import configuration_schema

CHANNELS = channels_of("pond-2")
SCHEMA = configuration_schema(CHANNELS, title="pond-2")
VALIDATOR = Draft202012Validator(SCHEMA)

# What only a look at the whole, or at bytes, can tell.
BEYOND = ("cannot end at", "takes")

_integers = st.integers(-5, 90_000) | st.sampled_from([59, 60, 86_400, 86_401, 0, 65_535, 20_000])
_texts = st.text(max_size=70) | st.text("0123456789abcdef", min_size=62, max_size=66)
_keys = st.sampled_from([*CHANNELS.keys, *CHANNELS.slots, "xy"])
_rules = st.tuples(
    _keys,
    st.sampled_from([*configuration.KINDS, "beside"]),
    st.integers(-9, 9) | st.floats(width=32, allow_nan=False) | st.just("4"),
    st.integers(-9, 9) | st.floats(-9, 9, width=32),
).map(list)
_anything = (
    st.none() | st.booleans() | _integers | st.floats(0.1, 0.9) | _texts | st.just([]) | st.just({})
)
_values: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(configuration.INTEGERS, _integers | _anything),
    "every_s": st.dictionaries(_keys, _integers, max_size=3) | _anything,
    "limits": st.lists(_rules | _anything, max_size=18) | _anything,
    "host": st.text("az.-0 \x7fü", max_size=256) | _anything,
    "server_name": st.text("az.-0 ", max_size=6) | _anything,
    "renew": st.lists(st.text("az.-0 ", max_size=6) | _integers, min_size=2, max_size=4)
    | st.tuples(st.text("az", max_size=4), _integers, st.text("az ", max_size=4)).map(list)
    | _anything,
    "wifi": st.lists(st.tuples(_texts, _texts).map(list) | _anything, max_size=9) | _anything,
    "colour": _anything,
}


@st.composite
def settings(draw: st.DrawFn) -> dict[str, Any]:
    """One setting, good or bad."""
    name = draw(st.sampled_from(sorted(_values)))
    return {name: draw(_values[name])}


@given(settings())
@example({"wifi": [["s" * 32, "p" * 63]]})
@example({"wifi": [["s" * 32, "f" * 64], ["s", ""]]})
@example({"host": "h" * 253})
@example({"renew": ["h", 8443, "h"]})
@example({"every_s": {CHANNELS.slots[0]: 60}})
@example({"limits": [[CHANNELS.keys[0], "below", 4, 4.5]] * 8})
@example({"limits": [[CHANNELS.keys[0], "below", 1e9, 1e9]]})
@example({"limits": [[CHANNELS.keys[0], "below", 1.1e9, 1.2e9]]})
def test_schema_and_table_accept_the_same(values: dict[str, Any]) -> None:
    fault = find_fault_of_values(values, CHANNELS)
    is_valid = VALIDATOR.is_valid(values)
    if is_valid and fault is not None:
        has_long_letters = fault.name == "wifi" and not str(values).isascii()
        assert has_long_letters or any(word in fault.sentence for word in BEYOND), (values, fault)
    else:
        assert is_valid == (fault is None), (values, fault)


def test_what_the_schema_cannot_say_is_said_in_words() -> None:
    """A configuration that only its relations forbid passes the schema, which warns of them."""
    values = {"sample_s": 3600, "publish_s": 60}
    assert VALIDATOR.is_valid(values)
    assert find_fault(values, CHANNELS, provisioned={}) is not None
    assert "publish_s is at least sample_s" in SCHEMA["description"]


@pytest.mark.parametrize("model", ["tree-3", "pond-1", "bank-1", "level-1"])
def test_every_schema_is_one(model: str) -> None:
    Draft202012Validator.check_schema(configuration_schema(channels_of(model), title=model))
