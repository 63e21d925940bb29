"""Updates: what is signed, and how it comes to run. Loaded only while there is one."""


class Refused(Exception):
    """The node does not take an update; the text says why, as the server's pages do (fleet_server/wire/updates.py)."""
