"""Log lines are for people on a terminal and for machines in production."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from fleet_server.logs import set_up_logging
from fleet_server.settings import load_settings


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def test_json_line_has_event_level_time_and_fields(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(load_settings({"FLEET_LOG_FORMAT": "json"}))
    structlog.get_logger("a").info("receipt_advanced", node_id="n-000001", seq=7)
    structlog.get_logger("a").debug("not_asked_for")
    out, err = capfd.readouterr()
    (line,) = [json.loads(one) for one in err.splitlines()]
    assert (line["event"], line["level"], line["node_id"], line["seq"]) == (
        "receipt_advanced",
        "info",
        "n-000001",
        7,
    )
    assert line["timestamp"].endswith("Z")
    assert out == ""


def test_records_of_libraries_come_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(load_settings({"FLEET_LOG_FORMAT": "json"}))
    logging.getLogger("paho").warning("connection %s", "lost")
    (line,) = [json.loads(one) for one in capfd.readouterr().err.splitlines()]
    assert (line["event"], line["level"]) == ("connection lost", "warning")


def test_line_after_stderr_was_another_for_a_while_goes_where_stderr_is_now(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as other:
        patch.setattr(sys, "stderr", other)
        set_up_logging(load_settings({"FLEET_LOG_FORMAT": "json"}))
    structlog.get_logger("a").warning("broker_refused")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "broker_refused"


def test_secrets_are_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(load_settings({}))
    structlog.get_logger("a").info("user_added", name="anna", password="battery-staple")
    err = capfd.readouterr().err
    assert "anna" in err
    assert "battery-staple" not in err
