"""`fleet bench`, small: that it measures with the real parts, not how fast they are."""

from __future__ import annotations

import json

from click.testing import CliRunner

from fleet_server.cli.bench import bench


def test_ingest_is_measured_beside_a_bare_drain_of_the_same_rounds() -> None:
    result = CliRunner().invoke(
        bench, ["ingest", "--packs", "200", "--nodes", "2", "--rounds", "2", "--json"]
    )

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["rounds"] == 2
    assert figures["figure"] > 0
    assert figures["limit"] > 0
    assert figures["lowest_ratio"] <= figures["ratio"] <= figures["highest_ratio"]
    assert abs(figures["ratio"] - figures["figure"] / figures["limit"]) < 0.01
