"""`fleet node revoke` and `renew`: a node's certificate taken back, or signed anew."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.services import credentials


@click.command()
@click.argument("node_id_or_label")
@click.option("--reason", required=True, help="Why; it stands in the audit log.")
@data_option
@json_option
def revoke(*, node_id_or_label: str, reason: str, data_dir: str | None, as_json: bool) -> None:
    """Take a node out for good: its certificates are revoked, its session ends, what it says is stored no more.

    Example: fleet node revoke tree-01 --reason "stolen"
    """
    ca_dir = settings_of(data_dir).ca_dir
    with open_session(data_dir) as session:
        node_id = find_node(session, node_id_or_label).node_id
        serials = credentials.revoke_node(session, node_id, reason, ca_dir, now=datetime.now(UTC))
    fields = {"node_id": node_id, "revoked": serials}
    answer(
        fields, f"{node_id} is revoked: {', '.join(serials) or 'no certificate'}.", as_json=as_json
    )


@click.command()
@click.argument("node_id_or_label")
@data_option
@json_option
def renew(*, node_id_or_label: str, data_dir: str | None, as_json: bool) -> None:
    """Sign another certificate for a node's key now; the node gets it when it connects. After two thirds of its life it happens by itself.

    Example: fleet node renew tree-01
    """
    ca_dir = settings_of(data_dir).ca_dir
    with open_session(data_dir) as session:
        node_id = find_node(session, node_id_or_label).node_id
        offered = credentials.renew_node(session, node_id, ca_dir, now=datetime.now(UTC))
    fields = {
        "node_id": node_id,
        "serial": offered.serial,
        "expires_at": moment_text(offered.expires_at),
    }
    sentence = f"{node_id} is offered a certificate until {offered.expires_at:%Y-%m-%d}."
    answer(fields, sentence, as_json=as_json)
