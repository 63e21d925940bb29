"""The lowest free heap of this wake, for the state message."""

import gc

_low = None


def note():
    """Look now; called where much is alive at once."""
    global _low
    gc.collect()
    free = gc.mem_free()
    if _low is None or free < _low:
        _low = free
    return free


def low():
    """Lowest number of free bytes seen in this wake."""
    return note() if _low is None else _low
