"""The slot that does not run: room for the next version, and the version before while there is room for it."""

import os

import slots

_FOLDER = 0x4000


def give_up():
    """Make room by removing it; False when there is nothing, or it is needed.

    It is needed while the other version is on trial, and is then what the node comes back to.
    """
    record = slots.select()
    if record.state != slots.CONFIRMED:
        return False
    return keep_only("/" + slots.spare_of(record), lambda path: False)


def keep_only(folder, is_wanted, below=""):
    """Remove every file whose path in the folder is not wanted, and folders that are empty then; True when something was removed.

    What says that a slot is whole goes first. `below`: where in the folder this call is.
    """
    is_changed = not below and void(folder)
    try:
        entries = [entry[:2] for entry in os.ilistdir(folder)]  # all before anything is removed
    except OSError:
        return is_changed
    for name, kind in entries:
        path = folder + "/" + name
        if kind == _FOLDER:
            is_changed = keep_only(path, is_wanted, below + name + "/") or is_changed
            try:
                os.rmdir(path)
            except OSError:
                pass  # something of it is wanted
        elif not is_wanted(below + name):
            os.remove(path)
            is_changed = True
    return is_changed


def void(spare):
    """The slot counts as not whole from now on; False when it did not anyway."""
    try:
        os.remove(spare + "/VERSION")
    except OSError:
        return False
    return True
