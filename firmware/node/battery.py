"""The node's own supply, behind a voltage divider on ADC1."""

from micropython import const

from node import errors
from node.bus import adc

_READINGS = const(5)


def read(config):
    """Millivolts, or a reason's name. `config`: pin, divider_milli (ratio of the divider in thousandths)."""
    microvolts = adc.median_uv(config["pin"], _READINGS)
    if microvolts <= 0:
        return errors.RANGE
    return (microvolts * config["divider_milli"] + 500_000) // 1_000_000
