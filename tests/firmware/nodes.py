"""Boards with our firmware on them, wired and configured for one test."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from fake_probes import FakeResistance, FakeThermometer, FakeVoltage, scratchpad

from hardware.catalogue import load_node_model
from hardware.virtual_board.board import Board
from hardware.virtual_board.wiring import Wiring
from provisioning.firmware_bundle import FirmwareBundle, build_bundle
from provisioning.node_configuration import node_map

BUILT_AT_UTC_S = 1_780_000_000
START_US = (BUILT_AT_UTC_S + 100_000) * 1_000_000
NODE_ID = "n-3f9a1c"


@cache
def bundle() -> FirmwareBundle:
    return build_bundle(built_at_utc_s=BUILT_AT_UTC_S, version="1.2.3")


def tree_3() -> dict[str, Any]:
    return copy.deepcopy(node_map(load_node_model("tree-3"), has_panel=False))


def pond_1() -> dict[str, Any]:
    return copy.deepcopy(node_map(load_node_model("pond-1"), has_panel=False))


def bank_1() -> dict[str, Any]:
    return copy.deepcopy(node_map(load_node_model("bank-1")))


def probes_of(model_id: str, *slots: str) -> list[dict[str, Any]]:
    """The probes of a node model that hang on these slots, as the node is told of them; without slots all."""
    probes = copy.deepcopy(node_map(load_node_model(model_id)))["probes"]
    return [probe for probe in probes if not slots or probe["slot"] in slots]


def soil(node: dict[str, Any] | None = None) -> Wiring:
    """A tree's probes, all well; or those of another node that are in the soil."""
    wiring = Wiring(analog={35: FakeVoltage(1_937_000)})
    for probe in (node or tree_3())["probes"]:
        pins = probe["pins"]
        if probe["driver"] == "ds18b20":
            wiring.one_wire[pins["data"]] = FakeThermometer([scratchpad(318)])
        elif probe["driver"] == "watermark":
            ohm = 10e3 if probe["slot"] == "ref" else 4e3
            wiring.analog[pins["adc"]] = FakeResistance(pins["a"], pins["b"], pins["adc"], ohm, ohm)
    return wiring


@cache
def _flash_image() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        board = Board(Path(scratch) / "template")
        board.write_files(bundle().files_on_board())
        return board.flash_path.read_bytes()


def flashed_board(folder: Path, wiring: Wiring, **options: Any) -> Board:
    """A board with our files and no identity."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flash.bin").write_bytes(_flash_image())
    return Board(folder, wiring, **{"start_utc_us": START_US} | options)


def make_board(
    folder: Path,
    wiring: Wiring,
    *,
    node: dict[str, Any] | None,
    port: int = 9,
    link: dict[str, Any] | None = None,
    identity: dict[str, bytes] | None = None,
    **options: Any,
) -> Board:
    """A flashed and enrolled board; without TLS unless `link` says so."""
    board = flashed_board(folder, wiring, **options)
    blobs = {("id", "node_id"): NODE_ID.encode()}
    blobs |= {("id", name): data for name, data in (identity or {}).items()}
    if node is not None:
        blobs["cfg", "node"] = cbor2.dumps(node)
    blobs["cfg", "link"] = _link(port, link or {})
    _write_blobs(board, blobs)
    return board


def identity(certificate: Path, key: Path, root: Path) -> dict[str, bytes]:
    """What the bench writes of a node's certificate, key and authority, from files in PEM."""
    der = serialization.Encoding.DER
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return {
        "cert": x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(der),
        "key": loaded.private_bytes(
            der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "ca0": x509.load_pem_x509_certificate(root.read_bytes()).public_bytes(der),
    }


def connect_to(board: Board, port: int, **link: Any) -> None:
    """Let an enrolled board find its broker at another port."""
    _write_blobs(board, {("cfg", "link"): _link(port, link)})


def _link(port: int, changes: dict[str, Any]) -> bytes:
    plain = {
        "host": "127.0.0.1",
        "port": port,
        "tls": False,
        "server_name": "localhost",
        "wifi": [["stadt", "geheim"]],
        "ntp": "ntp.example",
        "prefix": "",
    }
    return cbor2.dumps(plain | changes)


def _write_blobs(board: Board, blobs: dict[tuple[str, str], bytes]) -> None:
    script = "from esp32 import NVS\n" + "".join(
        f"NVS({space!r}).set_blob({key!r}, {data!r})\n" for (space, key), data in blobs.items()
    )
    board.exec(script)


def measure(
    folder: Path, wiring: Wiring, probes: list[dict[str, Any]], limit_ms: int = 40_000
) -> dict[str, Any]:
    """What the node makes of these probes, by channel key."""
    printed = run_on(
        flashed_board(folder / "node", wiring),
        "from node import plan\nfrom node.deadline import Deadline\n"
        f"print(repr(plan.measure({probes!r}, Deadline({limit_ms}))))",
    )
    return dict(eval(printed[-1]))  # noqa: S307 - a literal printed by our own node


def run_on(board: Board, code: str) -> list[str]:
    """Run a script on the board with the slot's modules at hand; the lines it printed."""
    return board.exec("import sys\nsys.path.insert(0, '/a')\n" + code).splitlines()
