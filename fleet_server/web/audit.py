"""The audit log: who did what, newest first, whether it is whole, and as a table for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Response, render_template, request, stream_with_context

from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import cut_page
from fleet_server.models import AuditEntry
from fleet_server.services import auditing
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web

_PAGE_SIZE = 50
_ROWS_AT_ONCE = 1000
_CHECKED_UNASKED = 5000
"""Entries that are followed with every page; a longer log when somebody asks, because it takes seconds."""
_MAX_SEQ_DIGITS = 15
# A spreadsheet takes these at a cell's beginning for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Filters:
    """As they stand in the address; None where nothing was asked for."""

    actor: str | None
    action: str | None
    subject: str | None

    def given(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if value is not None}


@web.get("/fleet/audit")
@needs(Right.READ_AUDIT)
def audit() -> str:
    """`actor`, `action` and `subject` filter, `before` goes on to older ones, `check=1` follows a long log."""
    session, filters = current_session(), _filters()
    before = request.args.get("before", "")
    if before and not (before.isdecimal() and before.isascii() and len(before) <= _MAX_SEQ_DIGITS):
        raise Invalid("before wants the number of an entry.")
    found = auditing.newest_entries(
        session, limit=_PAGE_SIZE + 1, before_seq=int(before) if before else None, **filters.given()
    )
    page = cut_page(found, size=_PAGE_SIZE)
    head = auditing.log_head(session)
    is_checked = head.seq <= _CHECKED_UNASKED or request.args.get("check") == "1"
    return render_template(
        "audit.html",
        entries=page.items,
        before=page.items[-1].seq if page.has_more else None,
        filters=filters,
        head=head,
        chain=auditing.verify_chain(session) if is_checked else None,
    )


@web.get("/fleet/audit.csv")
@needs(Right.READ_AUDIT)
def audit_table() -> Response:
    """All entries that the filters let through, newest first."""
    lines = stream_with_context(_csv_lines(_filters()))
    answer = Response(lines, content_type="text/csv; charset=utf-8")
    answer.headers["Content-Disposition"] = "attachment; filename=audit.csv"
    return answer


def _filters() -> Filters:
    names = ("actor", "action", "subject")
    return Filters(**{name: request.args.get(name, "").strip() or None for name in names})


def _csv_lines(filters: Filters) -> Iterator[str]:
    yield _csv_line(["seq", "at", "actor", "action", "subject", "details", "sha256"])
    before: int | None = None
    session = current_session()
    while entries := auditing.newest_entries(
        session, limit=_ROWS_AT_ONCE, before_seq=before, **filters.given()
    ):
        for entry in entries:
            yield _csv_line(_cells(entry))
        before = entries[-1].seq
        session.expunge_all()


def _cells(entry: AuditEntry) -> list[str]:
    details = json.dumps(entry.details, sort_keys=True, ensure_ascii=False)
    told = [entry.actor, entry.action, entry.subject, details]
    harmless = [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in told]
    return [str(entry.seq), entry.at.isoformat(), *harmless, entry.sha256]


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
