"""All pages, registered at once."""

from __future__ import annotations

from flask import Flask, render_template

# Imported for the views that they hang on the blueprint.
from fleet_server.web import (
    accounts,
    alert_settings,
    alerts,
    api_docs,
    audit,
    change_words,
    configuration,
    credentials,
    field,
    files,
    groups,
    navigation,
    node_life,
    node_list,
    nodes,
    orders,
    own_account,
    packs,
    password_reset,
    people,
    public,
    quarantine,
    site_import,
    sites,
    work,
)
from fleet_server.web.blueprint import web

__all__ = [
    "accounts",
    "alert_settings",
    "alerts",
    "api_docs",
    "audit",
    "change_words",
    "configuration",
    "credentials",
    "error_page",
    "field",
    "files",
    "groups",
    "navigation",
    "node_life",
    "node_list",
    "nodes",
    "orders",
    "own_account",
    "packs",
    "password_reset",
    "people",
    "public",
    "quarantine",
    "register_pages",
    "site_import",
    "sites",
    "work",
]


def register_pages(app: Flask) -> None:
    app.register_blueprint(web)


def error_page(status: int, title: str, detail: str) -> str:
    return render_template("error.html", status=status, title=title, detail=detail)
