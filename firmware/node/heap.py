"""The lowest free heap of this wake, for the state message."""

import gc

_NOTHING_YET = 1 << 30

_low = _NOTHING_YET


def note():
    """Look now; called where much is alive at once."""
    global _low
    gc.collect()
    free = gc.mem_free()
    _low = min(_low, free)
    return _low


def low():
    """Lowest number of free bytes seen in this wake."""
    return note() if _low == _NOTHING_YET else _low
