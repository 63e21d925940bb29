"""A probe that answers with a voltage on ADC1, supplied only while it is read; its output never reaches the rails when it is well."""

from node import errors
from node.bus import adc
from node.errors import SensorError
from node.sensors.supplied import Supplied


class Analogue(Supplied):
    """`options`: warm_up_ms, readings, lowest_mv, highest_mv, spread_mv."""

    def read(self, deadline):
        """(mV,). Raises SensorError: range (at a rail: no supply, a short, a broken wire), spread."""
        options = self._options
        median_uv, spread_uv = adc.middle_uv(self._pins["adc"], options["readings"])
        value_mv = (median_uv + 500) // 1000
        if not options["lowest_mv"] <= value_mv <= options["highest_mv"]:
            raise SensorError(errors.RANGE)
        if spread_uv > options["spread_mv"] * 1000:
            raise SensorError(errors.SPREAD)
        return (value_mv,)


Driver = Analogue
