"""`fleet audit`: who did what, and whether anybody changed the log."""

from __future__ import annotations

import re
import sys

import click

from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.services import auditing

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@click.group()
def audit() -> None:
    """Who did what, and whether anybody changed the log.

    Example: fleet audit verify
    """


@audit.command()
@click.option(
    "--expect",
    metavar="SEQ:SHA256",
    help="A head that an earlier run showed and you noted: the log must still hold it.",
)
@data_option
@json_option
def verify(*, expect: str | None, data_dir: str | None, as_json: bool) -> None:
    """Follow the log from its first entry; exit 1 when one was changed or taken out.

    Note the head that it shows somewhere else: whoever writes the whole log anew is found by --expect.

    Example: fleet audit verify --json
    """
    expected = None if expect is None else _head(expect)
    with open_session(data_dir) as session:
        report = auditing.verify_chain(session, expected=expected)
    head = f"{report.head.seq}:{report.head.sha256}"
    told = {
        "entries": report.entries,
        "audit_chain_ok": report.fault is None,
        "fault": report.fault,
        "head": head,
    }
    if report.fault is None:
        text = f"The log is whole: {report.entries} entries. Its head, to note: {head}"
    else:
        text = report.fault
    answer(told, text, as_json=as_json)
    if report.fault is not None:
        sys.exit(1)


@audit.command(name="list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--actor", help="Only what this account (or key, console, token) did.")
@click.option("--action", help="Only this, like node_configured.")
@click.option("--subject", help="Only what was done to this, like `node n-3f9a1c`.")
@data_option
@json_option
def list_entries(
    *,
    limit: int,
    actor: str | None,
    action: str | None,
    subject: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """The newest entries, newest first.

    Example: fleet audit list --subject "node n-3f9a1c"
    """
    with open_session(data_dir) as session:
        entries = auditing.newest_entries(
            session, limit=limit, actor=actor, action=action, subject=subject
        )
    rows = [
        {
            "seq": entry.seq,
            "at": entry.at.isoformat(),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "details": entry.details,
        }
        for entry in entries
    ]
    lines = [
        f"{entry.seq:6} {entry.at:%Y-%m-%d %H:%M:%S}Z {entry.actor}: {entry.action} {entry.subject}"
        for entry in entries
    ]
    answer({"entries": rows}, "\n".join(lines) or "Nothing is in the log.", as_json=as_json)


def _head(text: str) -> auditing.Head:
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise click.UsageError(
            "--expect wants a head as `fleet audit verify` shows it: a number, a colon, 64 hexadecimal digits."
        )
    return auditing.Head(int(found[1]), found[2])
