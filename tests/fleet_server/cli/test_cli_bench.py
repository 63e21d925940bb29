"""`fleet bench`, small: that it measures with the real parts, not how fast they are."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fleet_server.cli.bench import bench


def test_ingest_is_measured_beside_a_bare_drain_of_the_same_rounds() -> None:
    result = CliRunner().invoke(
        bench, ["ingest", "--packs", "100", "--nodes", "2", "--rounds", "2", "--json"]
    )

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["rounds"] == 2
    assert figures["figure"] > 0
    assert figures["limit"] > 0
    assert figures["lowest_ratio"] <= figures["ratio"] <= figures["highest_ratio"]
    assert abs(figures["ratio"] - figures["figure"] / figures["limit"]) < 0.01


@pytest.mark.nightly
def test_lists_of_nodes_are_measured_beside_an_address_that_looks_nothing_up() -> None:
    result = CliRunner().invoke(bench, ["nodes", "--nodes", "200", "--rounds", "2", "--json"])

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["nodes"] == 200
    assert figures["filter_p95_ms"] > 0
    assert figures["node_page_p95_ms"] > 0
    assert abs(figures["ratio"] - figures["figure"] / figures["limit"]) < 0.01


@pytest.mark.nightly
def test_campaign_is_planned_opened_told_and_heard_of() -> None:
    result = CliRunner().invoke(bench, ["campaign", "--nodes", "300", "--rounds", "2", "--json"])

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["nodes"] == 294, "every fiftieth is out of service"
    assert figures["page_p95_ms"] > 0
    assert abs(figures["ratio"] - figures["figure"] / figures["limit"]) < 0.01


@pytest.mark.nightly
def test_correction_is_measured_beside_the_bare_reading_and_writing_of_its_rows() -> None:
    result = CliRunner().invoke(bench, ["recompute", "--rows", "3000", "--rounds", "1", "--json"])

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["values"] == 3000
    assert figures["one_channel_visible_s"] > 0
    assert 0 < figures["streaming_us_by_day"] < figures["streaming_us_by_hour"]
    assert figures["peak_memory_goal_mb"] == 500
    assert 0 <= figures["memory_grown_mb"] < figures["peak_memory_mb"]
    assert abs(figures["ratio"] - figures["figure"] / figures["limit"]) < 0.01


def test_storm_ends_when_every_node_has_the_receipt_of_its_pack() -> None:
    result = CliRunner().invoke(bench, ["storm", "--nodes", "4", "--json"])

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["nodes"] == 4
    assert 0 < figures["half_through_s"] <= figures["settled_s"]
    assert abs(figures["ratio"] - figures["figure"] / figures["limit"]) < 0.01
