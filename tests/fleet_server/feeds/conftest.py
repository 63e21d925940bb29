"""The small world's fixtures, for the tests of this folder."""

from tests.fleet_server.world_fixtures import sqlite_world, world

__all__ = ["sqlite_world", "world"]
