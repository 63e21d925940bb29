"""The table in docs/security/access.md, from what the code says. `python -m tests.fleet_server.access_table` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from flask import Flask
from sqlalchemy.orm import sessionmaker
from werkzeug.routing import Rule

from fleet_server.app import create_app
from fleet_server.http_shared import access
from fleet_server.models import Role
from fleet_server.services import rights
from fleet_server.settings import load_settings

TABLE = Path(__file__).parents[2] / "docs" / "security" / "access.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
_SHORT = {
    Role.TECHNICIAN: "tech.",
    Role.OPERATOR: "oper.",
    Role.RELEASE_AUTHOR: "author",
    Role.RELEASE_APPROVER: "appr.",
    Role.TREES_OFFICE: "trees",
    Role.WATERS_OFFICE: "waters",
    Role.DATA_STEWARD: "stew.",
    Role.AUDITOR: "audit",
    Role.ADMINISTRATOR: "admin",
}


def endpoints(app: Flask) -> Iterator[tuple[Rule, str]]:
    for rule in sorted(app.url_map.iter_rules(), key=lambda one: one.rule):
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def table_of(app: Flask) -> list[str]:
    """The table as it has to be."""
    lines = [
        "| method | address | right | nobody | " + " | ".join(_SHORT[role] for role in Role) + " |",
        "|---|---|---|" + ":-:|" * (1 + len(Role)),
    ]
    for rule, method in endpoints(app):
        said = access.access_of(app, rule, method)
        word = "open" if said.is_open else (said.right or "logged in")
        marks = ["✓" if said.is_open else ""]
        marks += [
            "✓" if said.is_open or said.right is None or said.right in rights.RIGHTS[role] else ""
            for role in Role
        ]
        lines.append(f"| {method} | `{rule.rule}` | {word} | {' | '.join(marks)} |")
    return lines


def _write() -> None:
    text = TABLE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    with TemporaryDirectory() as folder:  # a server draws a key there
        app = create_app(load_settings({}, data_dir=Path(folder)), sessionmaker())
    table = "\n".join(table_of(app))
    TABLE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    _write()
