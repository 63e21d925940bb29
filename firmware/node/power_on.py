"""What a node finds out once, when it was switched on."""

from micropython import const

from node import cbor

# More than a battery recovers by itself while nobody uses it, less than a full one has over one that needs to be swapped.
_RISE_MV = const(100)
# A battery gives more in any state: less was an open divider, or a node on a bench.
_LEAST_MV = const(1000)
# The newest packs on flash may be events.
_LOOK_BACK = const(4)

_NAME = const(0)
_VALUE = const(2)


def events(wake):
    """The (name, details) of what happened to the node while it was off.

    A battery was swapped or charged when it gives so much more than in the newest pack on flash. Nobody is asked: the technician has
    other things to do.
    """
    now_mv, before_mv = wake.battery_mv, _battery_before(wake)
    if now_mv is None or before_mv is None or before_mv < _LEAST_MV:
        return []
    if now_mv - before_mv < _RISE_MV:
        return []
    return [("battery_swap", (("mv", now_mv), ("was_mv", before_mv)))]


def _battery_before(wake):
    """The battery's last voltage that is on flash; None when there is none."""
    spool, battery = wake.spool, wake.config.node.get("bat")
    if spool is None or not battery:
        return None
    found = None
    for _, _, _, n_records, body in spool.packs(spool.newest - _LOOK_BACK, spool.newest):
        for record in cbor.decode(cbor.array_head(n_records) + body):
            if record[_NAME] == battery["key"] and _VALUE in record:
                found = record[_VALUE]
    return found
