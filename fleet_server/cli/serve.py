"""`fleet serve`: pages, feeds and API on one listener, the nodes' TLS listener on another, in one process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import click
import structlog
from cheroot import wsgi
from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db, logs
from fleet_server.app import create_app, create_node_app
from fleet_server.cli.answers import data_option
from fleet_server.cli.database import refuse_missing, wait_for_database
from fleet_server.cli.node_tls import NODE_LISTENER, NodeServer, NodeTls
from fleet_server.cli.stopping import told_to_end
from fleet_server.errors import Unavailable
from fleet_server.services import authority, key_files
from fleet_server.settings import Settings, load_settings
from fleet_server.web import assets

log = structlog.get_logger(__name__)

_PAGE_THREADS = 8
_NODE_THREADS = 8
_WAITING_CONNECTIONS = 128
"""Before one is accepted; cheroot's five would turn a fleet away that comes back at once."""
_ASSETS_PATIENCE_S = 10.0
"""How long a first start waits for the chart library before pages answer without it; usually it takes one second."""


@click.command()
@data_option
@click.option("--database-url", help="sqlite:///… or postgresql+psycopg://…")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, help="Port of the pages; 0 = any.")
@click.option("--node-port", type=int, help="Port of the nodes' TLS listener; 0 = any.")
@click.option(
    "--json", "as_json", is_flag=True, help="Say on stdout in one line of JSON when ready."
)
def serve(
    *,
    data_dir: str | None,
    database_url: str | None,
    host: str,
    port: int | None,
    node_port: int | None,
    as_json: bool,
) -> None:
    """Pages, feeds and API, and the nodes' TLS listener, until SIGTERM or Ctrl-C.

    Example: fleet serve --data .fleet --port 8080
    """
    settings = load_settings(
        data_dir=data_dir, database_url=database_url, port=port, node_port=node_port
    )
    refuse_missing(settings)
    logs.set_up_logging(settings)
    clock.use_clock(settings.clock)
    key_files.unlock_with(settings.ca_key_passphrase)
    has_nodes = _has_node_listener(settings)
    engine = db.make_engine(settings.database_url)
    try:
        is_there = _is_there(engine)
        sessions = db.session_factory(engine)
        _fetch_assets()
        pages = listen(create_app(settings, sessions), host, settings.port, threads=_PAGE_THREADS)
        nodes = _listen_to_nodes(settings, sessions, host) if has_nodes else None
        _announce(pages, nodes, as_json=as_json)
        _run_until_told([pages, nodes] if nodes else [pages], awaited=None if is_there else engine)
    finally:
        engine.dispose()


def _is_there(engine: Engine) -> bool:
    """False when the database does not answer: what asks for it gets a 503 then, and `/readyz` says when it is there.

    Raises:
        SchemaOutdated: the tables are not those of this version.
        DatabaseAway: SQLite cannot use the file.
    """
    try:
        db.check_schema(engine)
    except db.DatabaseAway:
        if engine.dialect.name == "sqlite":
            raise
        return False
    return True


def listen(
    app: Flask, host: str, port: int, *, threads: int, tls: NodeTls | None = None
) -> wsgi.Server:
    """A bound server; `url_of` tells its port, `serve()` runs it.

    Raises:
        Unavailable: the address is taken or not ours.
    """
    kind = wsgi.Server if tls is None else NodeServer
    server = kind(
        (host, port),
        app,
        numthreads=threads,
        server_name="stadtsensor",
        request_queue_size=_WAITING_CONNECTIONS,
    )
    server.ssl_adapter = tls
    server.shutdown_timeout = 2
    try:
        server.prepare()
    except OSError as problem:
        raise Unavailable(f"Cannot listen on {host}:{port}: {problem}.") from problem
    return server


def url_of(server: wsgi.Server) -> str:
    scheme = "https" if server.ssl_adapter else "http"
    host, port = server.bind_addr[:2]
    shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - only compared
    return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}"


def _has_node_listener(settings: Settings) -> bool:
    """False on a machine where the authority is not; what is there must be whole.

    Raises:
        PairUnusable: the listener's key or certificate cannot be used.
    """
    files = authority.AuthorityFiles(settings.ca_dir)
    certificate, key = files.certificate(NODE_LISTENER), files.key(NODE_LISTENER)
    if not (certificate.exists() or key.exists()):
        log.warning("node_listener_off", missing=str(certificate), next_step="fleet ca init")
        return False
    authority.check_pair(settings.ca_dir, NODE_LISTENER)
    return True


def _listen_to_nodes(settings: Settings, sessions: sessionmaker[Session], host: str) -> wsgi.Server:
    app = create_node_app(settings, sessions)
    tls = NodeTls(authority.AuthorityFiles(settings.ca_dir))
    return listen(app, host, settings.node_port, threads=_NODE_THREADS, tls=tls)


def _fetch_assets() -> None:
    """Fetch the chart library in the background; a machine without npm's registry starts all the same."""

    def fetch() -> None:
        try:
            assets.ensure_assets()
        except Unavailable as problem:
            log.warning("charts_off", reason=str(problem))

    fetching = threading.Thread(target=fetch, name="chart-library", daemon=True)
    fetching.start()
    fetching.join(_ASSETS_PATIENCE_S)


def _announce(pages: wsgi.Server, nodes: wsgi.Server | None, *, as_json: bool) -> None:
    node_url = url_of(nodes) if nodes else None
    if as_json:
        ready = {"event": "ready", "url": url_of(pages), "node_url": node_url}
        click.echo(json.dumps(ready))
    else:
        click.echo(f"Pages:  {url_of(pages)}", err=True)
        click.echo(f"Nodes:  {node_url or 'no listener; run `fleet ca init` first'}", err=True)


def _run_until_told(servers: list[wsgi.Server], *, awaited: Engine | None) -> None:
    """Serve until SIGTERM, SIGINT or a failure: of a listener, or that the awaited database is none for this version.

    Requests under way are answered first.
    """
    failures: list[BaseException] = []
    with told_to_end() as told:

        def run(work: Callable[[], Any], *, is_all: bool) -> None:
            try:
                work()
            except BaseException as problem:  # noqa: BLE001 - outer loop of a thread: raised again below
                failures.append(problem)
            if is_all or failures:
                told.set()

        works: list[tuple[Callable[[], Any], bool]] = [(server.serve, True) for server in servers]
        if awaited is not None:
            works.append((lambda: wait_for_database(awaited, told, check=db.check_schema), False))
        threads = [
            threading.Thread(target=run, args=(work,), kwargs={"is_all": is_all})
            for work, is_all in works
        ]
        for thread in threads:
            thread.start()
        try:
            told.wait()
        finally:
            stopping = [threading.Thread(target=server.stop) for server in servers]
            for thread in stopping:
                thread.start()
            for thread in (*stopping, *threads):
                thread.join()
    if failures:
        raise failures[0]
