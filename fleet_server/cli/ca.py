"""`fleet ca`: the fleet's own certificate authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from fleet_server.cli.answers import Host, answer, data_option, json_option
from fleet_server.cli.ca_keys import ask_if_person, lock, root, status, unlock
from fleet_server.services import authority
from fleet_server.settings import load_settings


@click.group()
def ca() -> None:
    """The fleet's own certificate authority.

    Example: fleet ca init --host broker.example.org
    """
    ask_if_person()


for _command in (status, lock, unlock, root):
    ca.add_command(_command)


@ca.command()
@data_option
@click.option(
    "--host",
    "hosts",
    type=Host(),
    multiple=True,
    help="Name or address of the broker and of the nodes' TLS listener; repeat for several. [default: this machine]",
)
@click.option(
    "--valid-since-days",
    type=click.IntRange(0, 3650),
    default=0,
    show_default=True,
    help="Start of validity, days ago: for virtual nodes that live through past days.",
)
@json_option
def init(
    data_dir: str | None, hosts: tuple[str, ...], valid_since_days: int, as_json: bool
) -> None:
    """Make the authority and the certificates of services and listeners. Never overwrites.

    Example: fleet ca init --host broker.example.org --host 10.0.0.7
    """
    folder = load_settings(data_dir=data_dir).ca_dir
    now = datetime.now(UTC)
    made = authority.initialise(
        folder,
        now=now,
        valid_from=now - timedelta(days=valid_since_days),
        hosts=(*hosts, *(host for host in authority.DEFAULT_HOSTS if host not in hosts)),
    )
    sentence = f"Made {', '.join(made)} in {folder}." if made else f"Everything is there: {folder}."
    answer({"folder": str(folder), "made": made}, sentence, as_json=as_json)


@ca.command()
@click.argument("name")
@data_option
@click.option(
    "--csr",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A node's certificate request (PEM); NAME is then the node id.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write a node's certificate. [default: NAME.crt]",
)
@click.option("--host", "hosts", type=Host(), multiple=True, help="As for init, for a listener.")
@json_option
def issue(
    name: str,
    data_dir: str | None,
    csr: Path | None,
    out: Path | None,
    hosts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sign a node's request, or renew the pair of a service or listener.

    \b
    Example: fleet ca issue svc-ingest
             fleet ca issue n-3f9a1c --csr n-3f9a1c.csr
    """
    folder = load_settings(data_dir=data_dir).ca_dir
    if csr is None:
        issued = authority.issue_pair(folder, name, hosts=hosts or authority.DEFAULT_HOSTS)
        path = authority.AuthorityFiles(folder).certificate(name)
    else:
        issued = authority.sign_node_request(folder, csr.read_bytes(), node_id=name)
        path = out or Path(f"{name}.crt")
        path.write_text(issued.pem, encoding="ascii")
    fields = {
        "name": issued.name,
        "serial": f"{issued.serial:x}",
        "not_after": issued.not_after.isoformat(),
        "certificate": str(path),
    }
    answer(fields, f"{path} is valid until {issued.not_after:%Y-%m-%d}.", as_json=as_json)


@ca.command()
@click.argument("name_or_serial")
@data_option
@json_option
def revoke(name_or_serial: str, data_dir: str | None, as_json: bool) -> None:
    """Put a certificate of a service or listener, or the one with a serial, on the revocation list.

    A node is taken out with `fleet node revoke`, which also lets the server know. A broker that `fleet broker` runs ends the
    live session within a second. Another mosquitto wants a SIGHUP, so that it reads the list, and then `fleet broker kick NODE_ID`.

    Example: fleet ca revoke svc-ingest
    """
    folder = load_settings(data_dir=data_dir).ca_dir
    serials = [f"{serial:x}" for serial in authority.revoke(folder, name_or_serial)]
    sentence = f"Revoked {name_or_serial}: {', '.join(serials)}."
    answer({"name": name_or_serial, "revoked": serials}, sentence, as_json=as_json)


@ca.command()
@data_option
@json_option
def crl(data_dir: str | None, as_json: bool) -> None:
    """Sign the revocation lists anew, before they run out. `fleet worker` does this by itself.

    Example: fleet ca crl
    """
    folder = load_settings(data_dir=data_dir).ca_dir
    runs_out = authority.write_crl(folder)
    files = authority.AuthorityFiles(folder)
    paths = [str(issuer.crl) for issuer in (files.issuing, files.services_authority)]
    fields = {"crl": paths, "runs_out": runs_out.isoformat()}
    sentence = f"{' and '.join(paths)} are valid until {runs_out:%Y-%m-%d}."
    answer(fields, sentence, as_json=as_json)
