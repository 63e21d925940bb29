"""What others' measurements are called on pages."""

from __future__ import annotations

from flask_babel import lazy_gettext

from fleet_server.models import ExternalValue, ImportKind
from fleet_server.web.blueprint import web
from fleet_server.web.words import decimal

IMPORT_KIND_WORDS = {
    ImportKind.HAND: lazy_gettext("hand reading"),
    ImportKind.LABORATORY: lazy_gettext("laboratory"),
    ImportKind.THIRD_PARTY: lazy_gettext("another network"),
}
COLUMN_WORDS = {
    "": lazy_gettext("nothing for us"),
    "value": lazy_gettext("values"),
    "u": lazy_gettext("their uncertainty"),
    "flag": lazy_gettext("their flag"),
    "time": lazy_gettext("time or date"),
    "clock_time": lazy_gettext("time of day"),
    "site": lazy_gettext("site"),
    "property": lazy_gettext("property"),
    "unit": lazy_gettext("unit"),
    "depth": lazy_gettext("depth in cm"),
    "sample": lazy_gettext("number of the sample"),
}
"""What a column of a file may be."""


@web.app_template_global()
def import_kind(kind: str) -> str:
    return str(IMPORT_KIND_WORDS[ImportKind(kind)])


@web.app_template_global()
def column_word(role: str) -> str:
    return str(COLUMN_WORDS[role])


@web.app_template_global()
def limit_text(value: ExternalValue) -> str:
    """`< 0,05`"""
    return f"{value.limit_sign}\N{NO-BREAK SPACE}{decimal(value.limit_value or 0.0, 3)}"
