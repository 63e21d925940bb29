"""How fast an operator finds nodes among very many: the filtered list and a node's page, asked over HTTP of a real `fleet serve`.

The limit is what the same server answers when there is nothing to look up (`/healthz`), measured in turns with the lists.
"""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from sqlalchemy import select

from fleet_server import db
from fleet_server.bench import registry
from fleet_server.bench.programs import Programs, line, own
from fleet_server.errors import Conflict, Unavailable
from fleet_server.models import Node
from fleet_server.services import accounts

FILTER_GOAL_MS, NODE_PAGE_GOAL_MS = 300, 200
USER, PASSWORD = "reader", "seven lime trees beside a pond"
_FULL_NODES = 20
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
_LISTS = (
    "/fleet/",
    "/fleet/?model=pond-1",
    "/fleet/?health=offline",
    "/fleet/?health=late&model=tree-3",
    "/fleet/?health=never_seen",
    "/fleet/?label=tree-0123",
    "/fleet/?label=nothing-like-this",
    "/fleet/?state=retired",
    "/fleet/?firmware_version=1.3.1&health=fresh",
    "/fleet/?site=water-050001",
    "/fleet/?battery_below_mv=3500",
    "/fleet/?sort=heard",
    "/fleet/?tag=shade&sort=battery",
    "/api/v1/nodes?limit=200&health=offline",
    "/api/v1/nodes?limit=200&model=soil-1&battery_below_mv=3600",
    "/api/v1/nodes?limit=200&heard_before=2020-01-01T00:00:00Z",
)


def measure(
    *, nodes: int = 100_000, rounds: int = 10, database_url: str | None = None
) -> dict[str, Any]:
    """Fill a registry and ask.

    Args:
        rounds: how often each list and each node's page is asked for.
        database_url: an empty PostgreSQL database; SQLite in a scratch folder when None.

    Raises:
        Unavailable: the server could not be started, or did not answer with a page.
        Conflict: the database is not empty.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="stadtsensor-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = database_url or f"sqlite:///{folder / 'bench.sqlite3'}"
        began = time.monotonic()
        full = _fill(url, nodes)
        filled_s = time.monotonic() - began
        programs = Programs(folder, url, stack)
        serve = programs.start(
            "serve", [own("fleet"), "serve", "--port", "0", "--json"], listen=True
        )
        reader = Reader(line(serve)["url"])
        stack.callback(reader.close)
        reader.log_in()
        lists, bare = _in_turns(reader, _LISTS, rounds)
        pages = _times(reader, [f"/fleet/nodes/{node_id}" for node_id in full], rounds)
    figure, limit = 1 / statistics.median(lists), 1 / statistics.median(bare)
    return {
        "figure": round(figure, 1),
        "unit": "lists/s",
        "limit": round(limit, 1),
        "ratio": round(figure / limit, 3),
        "filterp95_ms": p95_ms(lists),
        "filter_goal_ms": FILTER_GOAL_MS,
        "node_pagep95_ms": p95_ms(pages),
        "node_page_goal_ms": NODE_PAGE_GOAL_MS,
        "nodes": nodes,
        "lists": len(_LISTS),
        "rounds": rounds,
        "filled_s": round(filled_s, 1),
        "database": "postgresql" if database_url else "sqlite",
    }


def _fill(url: str, nodes: int) -> list[str]:
    engine = db.make_engine(url)
    try:
        db.upgrade(engine)
        sessions = db.session_factory(engine)
        with sessions() as session:
            if session.scalar(select(Node.node_id).limit(1)) is not None:
                raise Conflict("The database for a benchmark must be empty.")
        now = datetime.now(UTC).replace(microsecond=0)
        full = registry.fill(
            sessions, nodes=nodes, full=max(1, min(_FULL_NODES, nodes // 100)), now=now
        )
        with sessions() as session:
            accounts.create_user(session, USER, PASSWORD, now=now)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
    finally:
        engine.dispose()
    return full


class Reader:
    """A browser with one connection that stays open."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._cookie = ""

    def close(self) -> None:
        self._connection.close()

    def log_in(self) -> None:
        token = _TOKEN.search(self._ask("GET", "/login"))
        if token is None:
            raise Unavailable("The login page has no form.")
        form = {"name": USER, "password": PASSWORD, "csrf_token": token[1]}
        self._ask("POST", "/login", urlencode(form))

    def time_s(self, path: str) -> float:
        """Seconds until the whole answer is there."""
        began = time.perf_counter()
        self._ask("GET", path)
        return time.perf_counter() - began

    def _ask(self, method: str, path: str, form: str | None = None) -> str:
        headers = {"Cookie": self._cookie}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, form, headers)
        answer = self._connection.getresponse()
        body = answer.read().decode()
        cookie = answer.headers.get("Set-Cookie")
        if cookie:
            self._cookie = cookie.partition(";")[0]
        if answer.status not in ((200, 303) if method == "POST" else (200,)):
            raise Unavailable(f"{path} was answered with {answer.status}.")
        return body


def _in_turns(reader: Reader, paths: Sequence[str], rounds: int) -> tuple[list[float], list[float]]:
    lists: list[float] = []
    bare: list[float] = []
    for path in paths:
        reader.time_s(path)  # what the server makes once is no matter of filters
    for _ in range(rounds):
        for path in paths:
            lists.append(reader.time_s(path))
            bare.append(reader.time_s("/healthz"))
    return lists, bare


def _times(reader: Reader, paths: Sequence[str], rounds: int) -> list[float]:
    reader.time_s(paths[0])
    ask: Callable[[str], float] = reader.time_s
    return [ask(path) for _ in range(rounds) for path in paths]


def p95_ms(times_s: Sequence[float]) -> float:
    return round(statistics.quantiles(times_s, n=20)[-1] * 1000, 1)
