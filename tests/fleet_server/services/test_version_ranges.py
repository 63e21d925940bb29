"""Ranges of versions as people write them, ordered as Semantic Versioning orders them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.services.version_ranges import RangeWrong, read_range, version_key

# Semantic Versioning 2.0.0, §11.2 and §11.4.4: its own examples.
IN_ORDER = (
    "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
    "2.0.0", "2.1.0", "2.1.1",
)  # fmt: skip


def test_versions_are_ordered_as_semantic_versioning_says() -> None:
    assert sorted(set(IN_ORDER), key=version_key) == list(IN_ORDER)
    assert version_key("v1.2") == version_key("1.2.0") == version_key("1.2.0+build.7")


@pytest.mark.parametrize(
    ("text", "version", "holds"),
    [
        ("", "1.0", True),
        ("1.27", "1.27.0", True),
        ("=1.27.0", "1.27.1", False),
        ("<1.28", "1.27.99", True),
        ("<1.28", "1.28.0-preview", True),
        (">=1.20, <1.27.3", "1.27.3", False),
        (">=1.20,<1.27.3", "1.20", True),
        ("!=1.27.1", "1.27.1", False),
        (">v1.9", "1.10", True),
        (">1.0", "weekly-7", True),
    ],
)
def test_a_range_holds_for_what_it_says(text: str, version: str, holds: bool) -> None:
    assert read_range(text).holds(version) is holds


@pytest.mark.parametrize(
    "text", [">>1", "1,", "~1.2", "1 2", "<", ",".join(["1"] * 11), "1" * 201, "1.2;DROP"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(RangeWrong):
        read_range(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_version_breaks_a_comparison(one: str, other: str) -> None:
    assert (version_key(one) < version_key(other)) in (True, False)
