"""The Flask applications: one for people, feeds and programs, one for the nodes' own listener."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.api import management, node_listener, operations, release_files, renewal
from fleet_server.feeds.sensorthings.views import sensorthings
from fleet_server.http_shared import (
    access,
    addresses,
    database,
    languages,
    limits,
    problems,
    security_headers,
    uploads,
)
from fleet_server.http_shared.auth import register_auth
from fleet_server.settings import Settings
from fleet_server.web.pages import error_page, register_pages

LONGEST_REQUEST_BYTES = 1024 * 1024


def create_app(settings: Settings, session_factory: sessionmaker[Session]) -> Flask:
    """Pages, feeds and API over one database."""
    is_https = urlsplit(settings.public_url).scheme == "https"
    app = Flask(__name__, static_folder="web/static", static_url_path="/static")
    app.config.update(
        SECRET_KEY=settings.session_key(),
        FLEET_SETTINGS=settings,
        ALL_SITES_PUBLIC=settings.demo,
        MAX_CONTENT_LENGTH=LONGEST_REQUEST_BYTES,
        SEND_FILE_MAX_AGE_DEFAULT=3600,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined] # Flask's own provider has it
    addresses.register_addresses(app)
    database.register_database(app, session_factory)
    problems.register_problems(app, page=error_page)
    security_headers.register_security_headers(app, is_https=is_https)
    limits.register_limits(app)
    uploads.register_uploads(app)
    register_auth(app, is_https=is_https)
    languages.register_languages(app)
    register_pages(app)
    management.register_management(app)
    app.register_blueprint(operations.operations)
    app.register_blueprint(sensorthings)
    access.register_access(app)
    return app


def create_node_app(settings: Settings, session_factory: sessionmaker[Session]) -> Flask:
    """The nodes' TLS listener: programs only, no session, no cookie."""
    app = Flask(__name__, static_folder=None)
    app.config.update(
        FLEET_SETTINGS=settings,
        MAX_CONTENT_LENGTH=node_listener.LONGEST_REQUEST_BYTES,
    )
    database.register_database(app, session_factory)
    problems.register_problems(app)
    limits.register_limits(app)
    app.register_blueprint(node_listener.node_listener)
    app.register_blueprint(renewal.renewal)
    app.register_blueprint(release_files.release_files)
    return app
