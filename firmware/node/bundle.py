"""What the running slot holds, by its VERSION file."""

import json

import slots


def running_bundle():
    """version, counter (0: no release), sha256, built_utc_s; if an update brought it, assignment and attempt."""
    with open("/" + slots.select().slot + "/VERSION") as file:
        return json.load(file)
