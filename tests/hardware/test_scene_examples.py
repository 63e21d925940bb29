"""The worked examples in the docstrings of catalogue, probes and scene physics are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "hardware.catalogue",
        "hardware.spoken",
        "hardware.virtual_board.probes.a02yyuw",
        "hardware.virtual_board.probes.ds18b20",
        "hardware.virtual_board.probes.ezo",
        "hardware.virtual_board.probes.modbus",
        "hardware.virtual_board.probes.teros",
        "hardware.virtual_board.probes.watermark",
        "hardware.virtual_board.scene_models",
    ],
)
def test_examples_in_the_docstrings_are_true(name):
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted > 0
    assert tried.failed == 0
