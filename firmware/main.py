"""Runs the chosen slot's wake. Whatever it raises becomes a crash record, then sleep. Never part of a bundle."""

import gc

# The longest nap between a wake that failed outright and the next try.
_LAST_RESORT_MS = 900_000


def wake():
    # Garbage is collected early and often, so that the lowest free heap tells the program's true need.
    gc.threshold(8192)
    try:
        from node import start

        start.run()
    except Exception as error:
        gc.collect()
        import judge

        judge.note_failed_wake()
        from node import crash

        crash.end_wake(error)


def _last_resort():
    # Only when the slot's own files are so broken that not even its crash handling can be loaded.
    import machine

    machine.deepsleep(_LAST_RESORT_MS)


try:
    wake()
except Exception:
    _last_resort()
