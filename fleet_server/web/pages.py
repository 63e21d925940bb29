"""All pages, registered at once."""

from __future__ import annotations

from flask import Flask, render_template
from flask_babel import lazy_gettext
from werkzeug import exceptions

from fleet_server.errors import Said

# Imported for the views that they hang on the blueprint.
from fleet_server.web import (
    accounts,
    alert_settings,
    alerts,
    api_docs,
    audit,
    calibration_words,
    calibrations,
    campaign_words,
    campaigns,
    change_words,
    city,
    city_words,
    configuration,
    corrections,
    credentials,
    external_login,
    field,
    files,
    flags,
    groups,
    guided,
    limit_words,
    limits,
    measurement_words,
    measurements,
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
    releases,
    revision_words,
    revisions,
    site_import,
    sites,
    uncertainty,
    work,
)
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words

__all__ = [
    "accounts",
    "alert_settings",
    "alerts",
    "api_docs",
    "audit",
    "calibration_words",
    "calibrations",
    "campaign_words",
    "campaigns",
    "change_words",
    "city",
    "city_words",
    "configuration",
    "corrections",
    "credentials",
    "error_page",
    "external_login",
    "field",
    "files",
    "flags",
    "groups",
    "guided",
    "limit_words",
    "limits",
    "measurement_words",
    "measurements",
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
    "releases",
    "revision_words",
    "revisions",
    "site_import",
    "sites",
    "uncertainty",
    "work",
]


def register_pages(app: Flask) -> None:
    app.register_blueprint(web)


_TITLES = {
    400: lazy_gettext("This does not fit"),
    403: lazy_gettext("Not allowed"),
    404: lazy_gettext("Not there"),
    405: lazy_gettext("Not in this way"),
    409: lazy_gettext("Not in this state"),
    413: lazy_gettext("Too much at once"),
    429: lazy_gettext("Too often"),
    500: lazy_gettext("Something went wrong"),
    503: lazy_gettext("Not now"),
}


# What werkzeug says where nobody said more, in its English for programmers.
_DETAILS = {
    exceptions.NotFound.description: lazy_gettext("There is nothing at this address."),
    exceptions.MethodNotAllowed.description: lazy_gettext(
        "This address is for a form; go to the page with the form."
    ),
    exceptions.RequestEntityTooLarge.description: lazy_gettext("What was sent is too long."),
    exceptions.InternalServerError.description: lazy_gettext(
        "That is our fault. It was noted; try again, and tell who runs this server if it stays so."
    ),
}


def error_page(status: int, title: str, detail: str) -> str:
    """`title` is HTTP's own, for what we have no words."""
    return render_template(
        "error.html",
        status=status,
        title=_TITLES.get(status, title),
        detail=in_words(detail) if isinstance(detail, Said) else _DETAILS.get(detail, detail),
    )
