"""The small world as fixtures: built once per module and database, read by many tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from databases import hurried_engine
from flask import Flask
from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.app import create_app
from fleet_server.settings import Settings, load_settings
from tests.fleet_server import small_world


class _Templates(BytecodeCache):
    """Templates that were compiled before, in whichever application."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key + bucket.checksum in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key + bucket.checksum])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key + bucket.checksum] = bucket.bytecode_to_string()


_TEMPLATES = _Templates()


@dataclass
class World:
    """A built world, and how to make applications over it."""

    engine: Engine
    sessions: sessionmaker[Session]
    url: str
    data_dir: Path

    def settings(self, **overrides: object) -> Settings:
        given = {"data_dir": self.data_dir, "database_url": self.url, "demo": True, **overrides}
        return load_settings({}, **given)

    def app(self, **overrides: object) -> Flask:
        made = create_app(self.settings(**overrides), self.sessions)
        made.testing = True
        made.jinja_env.bytecode_cache = _TEMPLATES
        return made

    def browser(self, name: str = small_world.USER, **overrides: object) -> FlaskClient:
        """A person's browser, logged in; everybody has the same password here."""
        client = self.app(**overrides).test_client()
        log_in(client, name=name)
        return client

    def program(self, name: str = small_world.USER, **overrides: object) -> FlaskClient:
        """A person's program: as their browser, but no form's token is wanted of it."""
        app = self.app(**overrides)
        app.config["WTF_CSRF_ENABLED"] = False
        client = app.test_client()
        client.post("/login", data={"name": name, "password": small_world.PASSWORD})
        return client

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Every statement that the database is asked inside the block."""
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            seen.append(statement)

        event.listen(self.engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(self.engine, "before_cursor_execute", note)


@pytest.fixture(
    scope="module",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgresql)],
)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    source = "sqlite_databases" if request.param == "sqlite" else "postgresql_server"
    with request.getfixturevalue(source).fresh() as url:
        yield from _built(url, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def sqlite_world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """For what does not depend on the database."""
    with request.getfixturevalue("sqlite_databases").fresh() as url:
        yield from _built(url, tmp_path_factory.mktemp("world"))


def _built(url: str, data_dir: Path) -> Iterator[World]:
    engine = hurried_engine(url)
    sessions = db.session_factory(engine)
    clock.use_clock(f"{int(small_world.NOW.timestamp())}@0x0")
    small_world.build_world(sessions)
    yield World(engine, sessions, url, data_dir)
    clock.use_clock(clock.REAL)
    engine.dispose()


def csrf_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found, "the page has no form with a CSRF token"
    return found[1]


def log_in(client: FlaskClient, *, name: str = small_world.USER, next_page: str = "") -> None:
    """Log a person in, as a browser would; everybody has the same password here."""
    page = client.get("/login", query_string={"next": next_page}).text
    answer = client.post(
        "/login",
        data={
            "name": name,
            "password": small_world.PASSWORD,
            "csrf_token": csrf_token(page),
            "next": next_page,
        },
    )
    assert answer.status_code == 303, answer.text


def operator_at(
    now: datetime, sessions: sessionmaker[Session], data_dir: Path
) -> Iterator[FlaskClient]:
    """The browser of a logged-in operator over a database of the test's own, at that moment."""
    engine = sessions.kw["bind"]
    clock.use_clock(f"{int(now.timestamp())}@0x0")
    world = World(engine, sessions, engine.url.render_as_string(hide_password=False), data_dir)
    client = world.app().test_client()
    log_in(client)
    yield client
    clock.use_clock(clock.REAL)
