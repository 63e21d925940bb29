"""The node's own supply, behind a voltage divider on ADC1, and what the node does without when it gets low."""

from micropython import const

from node import errors, plan

LEVELS = ("normal", "low", "mute", "stop")
"""By number, as node/plan.py has them."""

_READINGS = const(5)
# A cell that is spared recovers by itself: only charging, or a warmer day, ends a level.
_RISE_MV = const(100)


def read(config):
    """Millivolts, or a reason's name. `config`: pin, divider_milli (ratio of the divider in thousandths)."""
    from node.bus import adc

    microvolts = adc.median_uv(config["pin"], _READINGS)
    if microvolts <= 0:
        return errors.RANGE
    return (microvolts * config["divider_milli"] + 500_000) // 1_000_000


def level(before, millivolts, thresholds_mv):
    """The level that this voltage means after the level `before`. `thresholds_mv`: below which plan.LOW, MUTE and STOP begin, or None."""
    reached = plan.NORMAL
    for of, threshold_mv in enumerate(thresholds_mv, plan.LOW):
        rise_mv = _RISE_MV if of <= before else 0
        if threshold_mv is not None and millivolts < threshold_mv + rise_mv:
            reached = of
    return reached
