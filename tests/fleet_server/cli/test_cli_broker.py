"""`fleet ca` and `fleet broker` as a person and a program use them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import (
    Certificates,
    RawClient,
    free_port,
    node_client,
    running_mosquitto,
    service_client,
)
from click.testing import CliRunner

from fleet_server.broker import mosquitto
from fleet_server.cli.broker import broker
from fleet_server.cli.ca import ca
from fleet_server.errors import FleetError
from fleet_server.services import authority

FLEET = str(Path(sys.executable).parent / "fleet")


def run(command: Any, *arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints."""
    result = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextmanager
def embedded_process(data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if "FLEET_" not in name}
    process = subprocess.Popen(
        [FLEET, "broker", "embedded", "--data", str(data), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        with process:
            yield process
            process.terminate()
    finally:
        process.kill()


def test_embedded_broker_says_its_ports_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    made = run(ca, "init", "--data", str(tmp_path))
    assert "broker.crt" in made["made"]
    ports = ("--node-port", "0", "--service-port", "0")
    with embedded_process(tmp_path, *ports, "--json") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        status = json.loads((tmp_path / "broker" / "status.json").read_text())
        assert status["ports"] == {
            "nodes": ready["node_port"],
            "services": ready["service_port"],
        }
        certificates = Certificates(tmp_path / "ca")
        with RawClient(
            ready["node_port"], certificates.node("n-1x"), certificates.files.root_certificate
        ) as node:
            assert node.connect("n-2x") != 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    status = json.loads((tmp_path / "broker" / "status.json").read_text())
    assert status["refused"]["client_id_not_own"] == 1


def test_port_that_is_taken_is_named_in_one_sentence(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with embedded_process(tmp_path, "--node-port", port, "--service-port", "0") as process:
            _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert port in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["embedded", "--host", "0.0.0.0"], "this machine"),  # noqa: S104 - refused
        (["config", "--node-port", "8884"], "different ports"),
        (["config", "--user", "no-such-user"], "no-such-user"),
        (["kick", "n-1a2b3c"], "by itself"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    tmp_path: Path, arguments: list[str], word: str
) -> None:
    authority.initialise(tmp_path / "ca")
    result = CliRunner().invoke(broker, [*arguments, "--data", str(tmp_path)])
    assert isinstance(result.exception, FleetError)
    assert word in str(result.exception)


def test_without_an_authority_one_is_told_how_to_make_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(broker, ["config", "--data", str(tmp_path)])
    assert "fleet ca init" in str(result.exception)


@pytest.mark.needs_mosquitto
def test_configuration_starts_an_unmodified_mosquitto_with_all_three_doors(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "ca")
    node_port, service_port, public_port = free_port(), free_port(), free_port()
    made = run(
        broker,
        *("config", "--data", str(tmp_path), "--out", str(tmp_path / "out")),
        *("--node-port", str(node_port), "--service-port", str(service_port)),
        *("--public-port", str(public_port)),
    )
    assert made["broker_url"] == f"mqtts://127.0.0.1:{node_port}?service_port={service_port}"
    assert made["start"].startswith("mosquitto -c ")
    with running_mosquitto(
        certificates, Path(made["configuration"]), node_port=node_port, service_port=service_port
    ) as real:
        with service_client(real, "svc-control") as control:
            control.publish_and_wait("v1.1/Datastreams(1)", b"seen", is_retained=True)
            control.publish_and_wait("dn/n-1x/des", b"unseen", is_retained=True)
        with RawClient(public_port, None, certificates.files.root_certificate) as anyone:
            assert anyone.connect("anyone") == 0
            anyone.subscribe("v1.1/#", "dn/#", "up/#")
            anyone.publish_and_wait("v1.1/Datastreams(1)", b"forged", is_retained=True)
            assert [payload for _, payload, _ in anyone.drain()] == [b"seen"]
        with node_client(real, certificates.node("n-1x")) as node:
            assert node.connect("n-1x") == 0
            node.subscribe("dn/n-1x/des")
            assert [payload for _, payload, _ in node.drain()] == [b"unseen"]


def test_services_reach_a_broker_on_another_machine_under_its_host_name(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path))
    made = run(broker, "config", "--data", str(tmp_path), "--host", "broker.example.org")
    lines = Path(made["configuration"]).read_text().splitlines()
    assert [line.strip() for line in lines if line.startswith("listener ")] == [
        "listener 8883",
        "listener 8884",
    ]
    assert made["broker_url"] == "mqtts://broker.example.org:8883?service_port=8884"


def test_mosquitto_runs_as_debians_user_only_where_that_user_can_read(tmp_path: Path) -> None:
    """pytest's folders are closed to others: there mosquitto stays who starts it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    own = Path("/proc/self").owner()
    assert mosquitto.choose_user([closed]) == own


def test_configuration_written_again_is_the_same(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path))
    first = run(broker, "config", "--data", str(tmp_path))
    text = Path(first["configuration"]).read_text()
    assert run(broker, "config", "--data", str(tmp_path)) == first
    assert Path(first["configuration"]).read_text() == text


def test_revocation_by_command_line_is_told_and_kept(tmp_path: Path) -> None:
    run(ca, "init", "--data", str(tmp_path), "--host", "broker.example.org")
    certificates = Certificates(tmp_path / "ca")
    certificates.node("n-1a2b3c")
    told = run(ca, "revoke", "n-1a2b3c", "--data", str(tmp_path))
    kept = authority.revoked_serials(tmp_path / "ca")
    assert [int(serial, 16) for serial in told["revoked"]] == list(kept)
    assert len(run(ca, "crl", "--data", str(tmp_path))["crl"]) == 2
    renewed = run(ca, "issue", "svc-ingest", "--data", str(tmp_path))
    assert stat.S_IMODE(Path(renewed["certificate"]).with_suffix(".key").stat().st_mode) == 0o600
