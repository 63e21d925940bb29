"""`fleet alert`: what calls for help, and who looks after it."""

from __future__ import annotations

from datetime import timedelta

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.models import AlertKind, Severity
from fleet_server.services import alert_words, alerting, silencing
from fleet_server.services.alerting import AlertOverview, Wanted


@click.group()
def alert() -> None:
    """What calls for help, and who looks after it.

    Example: fleet alert list
    """


@alert.command(name="list")
@click.option("--all", "shows_all", is_flag=True, help="Also what is over.")
@click.option("--kind", "kinds", type=click.Choice([str(one) for one in AlertKind]), multiple=True)
@click.option("--severity", "severities", type=click.Choice([str(one) for one in Severity]), multiple=True)  # fmt: skip
@click.option("--node", "node_id_or_label", help="Only about this node.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@data_option
@json_option
def list_alerts(
    *,
    shows_all: bool,
    kinds: tuple[str, ...],
    severities: tuple[str, ...],
    node_id_or_label: str | None,
    limit: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Open alerts, newest first.

    Example: fleet alert list --severity urgent
    """
    with open_session(data_dir) as session:
        node = find_node(session, node_id_or_label) if node_id_or_label else None
        wanted = Wanted(
            is_open=None if shows_all else True,
            kinds=[AlertKind(one) for one in kinds],
            severities=[Severity(one) for one in severities],
            node_id=node.node_id if node else None,
        )
        found = alerting.alerts(session, wanted, limit=limit)
    lines = [_line(one) for one in found]
    answer(
        {"alerts": [_fields(one) for one in found]},
        "\n".join(lines) or "Nothing calls for help.",
        as_json=as_json,
    )


@alert.command()
@click.argument("alert_id", type=click.IntRange(1, 2**53))
@click.option("--note", default="", help="What will be done.")
@data_option
@json_option
def ack(*, alert_id: int, note: str, data_dir: str | None, as_json: bool) -> None:
    """Say that you look after an alert: it is not escalated.

    Example: fleet alert ack 17 --note "battery on Friday"
    """
    with open_session(data_dir) as session:
        row = alerting.acknowledge(session, alert_id, note=note, now=clock.now())
        fields = {
            "id": row.id,
            "acknowledged_by": row.acknowledged_by,
            "acknowledged_at": moment_text(row.acknowledged_at),
        }
    answer(fields, f"{fields['acknowledged_by']} looks after alert {alert_id}.", as_json=as_json)


@alert.command()
@click.argument("scope", type=click.Choice(silencing.SCOPES))
@click.argument("key", default="")
@click.option("--hours", type=click.IntRange(1, 2160), required=True, help="How long, from now on.")
@click.option("--reason", required=True, help="What for.")
@data_option
@json_option
def silence(
    *, scope: str, key: str, hours: int, reason: str, data_dir: str | None, as_json: bool
) -> None:
    """Call nobody for a node, a site (KEY is its code), a group (its name), a model or all, for some hours.

    Example: fleet alert silence site stadtpark-linde --hours 8 --reason "trees are pruned"
    """
    with open_session(data_dir) as session:
        now = clock.now()
        if scope == "node":
            key = find_node(session, key).node_id
        row = silencing.silence(
            session,
            scope=scope,
            key=key,
            from_at=now,
            to_at=now + timedelta(hours=hours),
            reason=reason,
            now=now,
        )
        fields = {"id": row.id, "scope": scope, "key": row.key, "to_at": moment_text(row.to_at)}
    answer(fields, f"Nobody is called for {scope} {key} until {fields['to_at']}.", as_json=as_json)


def _line(one: AlertOverview) -> str:
    subject = alert_words.subject_word(one.subject, one.label, "en")
    if one.closed_at:
        state = f"over since {moment_text(one.closed_at)}"
    elif one.acknowledged_by:
        state = f"{one.acknowledged_by} looks after it"
    else:
        state = "open"
    sentence = alert_words.sentence(one.kind, one.details, "en")
    since = moment_text(one.opened_at)
    return f"{one.id:6} {since} {one.severity:7} {subject}: {sentence} ({state})"


def _fields(one: AlertOverview) -> dict[str, object]:
    return {
        "id": one.id,
        "kind": str(one.kind),
        "severity": str(one.severity),
        "subject": one.subject,
        "node_id": one.node_id,
        "label": one.label,
        "details": dict(one.details),
        "opened_at": moment_text(one.opened_at),
        "closed_at": moment_text(one.closed_at),
        "acknowledged_by": one.acknowledged_by,
        "note": one.note,
        "escalated_at": moment_text(one.escalated_at),
    }
