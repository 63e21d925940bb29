"""Which kind of wake this is: a usual one, or one that only updates. Neither loads what the other needs."""


def run():
    """Does not return."""
    from node import rtc_memory

    if rtc_memory.load().update == rtc_memory.UPDATE_SESSION:
        from node.update import session

        session.run()
    from node import cycle

    cycle.run()
