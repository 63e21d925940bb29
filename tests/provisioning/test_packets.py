"""Enrolment without network: request out on a file, answer back on it, and no secret in between."""

from __future__ import annotations

import json
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from typed_commands import is_one_sentence

from hardware.virtual_board.board import Board
from tests.provisioning.conftest import GOOD_TOKEN, Command, SmallFleet

ENROL = "node enrol --model tree-3"
PACKET = "--board virtual:board --label tree-01 --packet tree-01.packet"


def uploading(fleet: SmallFleet, token: str = GOOD_TOKEN, packet: str = "tree-01.packet") -> str:
    return f"node upload {packet} --server {fleet.url} --server-ca {fleet.ca_file} --token {token}"


def test_a_board_is_enrolled_by_a_packet_that_travels_to_the_fleet_and_back(
    provision: Command, fleet: SmallFleet, tmp_path: Path
) -> None:
    status, out, _ = provision(f"{ENROL} {PACKET}")
    assert (status, out.partition(";")[0]) == (0, "Wrote tree-01.packet")
    assert fleet.requests == []
    packet = (tmp_path / "tree-01.packet").read_text(encoding="utf-8")
    assert "PRIVATE" not in packet
    key = Board(tmp_path / "board").nvs_blob("id", "next_key")

    status, _, err = provision(f"{ENROL} {PACKET}")
    assert (status, is_one_sentence(err, "has no answer yet; take it to where the fleet")) == (
        1,
        True,
    )

    status, _, err = provision(uploading(fleet, token="used"))
    assert (status, is_one_sentence(err, "The fleet refused the enrolment: ")) == (1, True)
    assert (tmp_path / "tree-01.packet").read_text(encoding="utf-8") == packet
    assert provision(uploading(fleet))[1].startswith("tree-01 will be n-000002.\n")
    assert provision(uploading(fleet))[0] == 0
    assert len(fleet.requests) == 2  # the refused one, and one

    assert provision(f"{ENROL} {PACKET}")[1] == "tree-01 is enrolled as n-000002.\n"
    assert provision(f"{ENROL} {PACKET}")[1].startswith("tree-01 was enrolled before as n-000002;")
    board = Board(tmp_path / "board")
    assert board.nvs_blob("id", "key") == key
    certificate = x509.load_der_x509_certificate(board.nvs_blob("id", "cert"))
    assert certificate.subject.rfc4514_string() == "CN=n-000002"
    assert cbor2.loads(board.nvs_blob("cfg", "link"))["port"] == 18883


def test_a_packet_goes_to_its_own_board_only(
    provision: Command, fleet: SmallFleet, tmp_path: Path
) -> None:
    provision(f"{ENROL} {PACKET}")
    provision(uploading(fleet))
    for board, sentence in (
        ("other", "was made of another board, or of this one before it was wiped;"),
        (
            "board --label tree-02",
            "is the packet of tree-01 (tree-3); name another file for tree-02.",
        ),
    ):
        status, _, err = provision(f"{ENROL} {PACKET} --board virtual:{board}")
        assert (status, is_one_sentence(err, sentence)) == (1, True), err

    packet = json.loads((tmp_path / "tree-01.packet").read_text(encoding="utf-8"))
    packet["answer"]["node_id"] = "n-999999"
    (tmp_path / "tree-01.packet").write_text(json.dumps(packet))
    status, _, err = provision(f"{ENROL} {PACKET}")
    assert (status, is_one_sentence(err, "not for this node's id and key.")) == (1, True)
    with pytest.raises(OSError, match="4354"):
        Board(tmp_path / "board").nvs_blob("id", "node_id")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("node upload nothing", "Give --server, --server-ca and --token; without network"),
        (
            f"{ENROL} --board virtual:b --label a",
            "Give --server, --server-ca and --token; without network",
        ),
        (f"{ENROL} {PACKET} --server https://h:1", "--packet asks no server and goes with neither"),
        (f"{ENROL} {PACKET} --again", "--packet asks no server and goes with neither"),
        (f"{ENROL} {PACKET} --label ''", "A label has 1 to 64 printable characters."),
        (
            f"{ENROL} {PACKET} --packet garbage",
            "garbage is no enrolment packet; make one with --packet.",
        ),
        (f"{ENROL} {PACKET} --packet .", "The packet . cannot be read: Is a directory."),
    ],
)
def test_what_is_no_packet_or_half_an_order_is_one_sentence(
    provision: Command, tmp_path: Path, typed: str, sentence: str
) -> None:
    (tmp_path / "garbage").write_text('{"format": "stadtsensor-enrolment-1", "label": 3}')
    status, _, err = provision(typed)
    assert (status, is_one_sentence(err, sentence)) == (2, True), err
