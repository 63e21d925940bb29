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
    return keep_only("/" + slots.spare_of(record), ())


def keep_only(spare, paths):
    """Remove every file of the slot that is not among `paths`, which are relative to it, and folders that are empty then."""
    is_changed = void(spare)
    for path in _files(spare):
        if path[len(spare) + 1 :] not in paths:
            os.remove(path)
            is_changed = True
    _remove_empty(spare)
    return is_changed


def void(spare):
    """The slot counts as not whole from now on; False when it did not anyway."""
    try:
        os.remove(spare + "/VERSION")
    except OSError:
        return False
    return True


def _files(folder):
    found = []  # before anything is removed: a folder that changes while it is read may hide a file
    try:
        for entry in os.ilistdir(folder):
            path = folder + "/" + entry[0]
            if entry[1] == _FOLDER:
                found += _files(path)
            else:
                found.append(path)
    except OSError:
        pass
    return found


def _remove_empty(folder):
    try:
        for name in [entry[0] for entry in os.ilistdir(folder) if entry[1] == _FOLDER]:
            _remove_empty(folder + "/" + name)
        os.rmdir(folder)
    except OSError:
        pass
