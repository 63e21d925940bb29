"""Nodes for measuring: flashed and enrolled like any other, but by a fleet that does not exist."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hardware.catalogue import load_node_model
from hardware.scenes import load_scene
from hardware.virtual_board.node_folder import EnrolledNode, NodeFolder
from provisioning.boards import VirtualBoard
from provisioning.enrolment import Identity, write_enrolment
from provisioning.firmware_bundle import build_bundle
from provisioning.flashing import flash_firmware
from provisioning.node_configuration import Link, encode_map, link_map, node_map

BENCH_SCENE = "bochum_summer"
_START_UTC_S = 1_750_000_000
_DAY_S = 86_400
_US_PER_S = 1_000_000
# Port 9 (discard, RFC 863) of this computer: nothing listens there, and a connection is refused at once.
_NOWHERE = Link("127.0.0.1", 9, True, "localhost", "ntp.invalid", "")


def prepare_bench_nodes(data_dir: Path, *, count: int) -> list[str]:
    """Make `count` enrolled nodes below `data_dir`, trees and ponds in turn; returns their labels."""
    scene = load_scene(BENCH_SCENE, nodes=count)
    bundle = build_bundle(built_at_utc_s=_START_UTC_S - _DAY_S)
    for number, node in enumerate(scene.nodes):
        board = VirtualBoard(data_dir / node.label, start_utc_us=_START_UTC_S * _US_PER_S)
        flash_firmware(board, bundle)
        node_id = f"n-bench-{number}"
        configuration = {
            "link": encode_map(link_map(_NOWHERE, [("virtual", "virtual")])),
            "node": encode_map(node_map(load_node_model(node.model), has_panel=False)),
        }
        write_enrolment(board, _identity(node_id), label=node.label, configuration=configuration)
        NodeFolder(data_dir / node.label).save(EnrolledNode(node.label, node.model, node_id))
    return [node.label for node in scene.nodes]


def _identity(node_id: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])
    begins = datetime.datetime.fromtimestamp(_START_UTC_S, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    private = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return Identity(node_id, private, der, (der,), _NOWHERE)
