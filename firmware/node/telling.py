"""An event, kept as a pack of its own."""

from node import senml


def tell(wake, name, details):
    """On flash when this returns."""
    spool, uptime_ms, power_up = wake.spool, wake.clock.uptime_ms(), wake.state.power_up
    readings = [("_event", name)]
    readings.extend(details)
    n_records, body = senml.body(spool.id, spool.next_seq, power_up, uptime_ms, readings)
    spool.append(power_up, uptime_ms, n_records, body)
