"""Enrolment ends in the NVS of a board: a virtual one, through the same script as a real one."""

import base64
import json
import time
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hardware.virtual_board.board import Board
from hardware.virtual_board.flash import PowerCutPlan
from provisioning.boards import VirtualBoard, open_board
from provisioning.enrolment import Enrolment, FleetAddress, enrol_node, read_node_id
from provisioning.errors import BenchError
from tests.provisioning.conftest import GOOD_TOKEN, SmallFleet


@pytest.fixture
def board(tmp_path) -> VirtualBoard:
    return VirtualBoard(tmp_path / "tree-01")


def nvs(board: VirtualBoard, namespace: str, key: str) -> bytes:
    return Board(board.folder).nvs_blob(namespace, key)


def enrol(
    board: VirtualBoard, fleet: SmallFleet, *, again: bool = False, token: str = GOOD_TOKEN
) -> Enrolment:
    return enrol_node(
        board,
        FleetAddress(fleet.url, fleet.ca_file),
        label="tree-01",
        model_id="tree-3",
        token=token,
        wifi=[("Büro", "Grüße ~\"'\\")],
        again=again,
    )


def test_a_fresh_board_is_not_enrolled(board: VirtualBoard) -> None:
    assert read_node_id(board) is None


def test_identity_and_configuration_are_in_the_boards_nvs(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    assert enrol(board, fleet) == Enrolment("n-000001", is_new=True)
    assert read_node_id(board) == "n-000001"
    assert nvs(board, "id", "node_id") == b"n-000001"
    certificate = x509.load_der_x509_certificate(nvs(board, "id", "cert"))
    key = serialization.load_der_private_key(nvs(board, "id", "key"), password=None)
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(nvs(board, "id", "ca0")))
    link = cbor2.loads(nvs(board, "cfg", "link"))
    assert (link["host"], link["port"]) == ("127.0.0.1", 18883)
    assert link["wifi"] == [["Büro", "Grüße ~\"'\\"]]
    assert cbor2.loads(nvs(board, "cfg", "node"))["model"] == "tree-3"


def test_enrolling_twice_keeps_the_identity_and_asks_nobody(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    first = enrol(board, fleet)
    key = nvs(board, "id", "key")
    assert enrol(board, fleet) == Enrolment(first.node_id, is_new=False)
    assert nvs(board, "id", "key") == key
    assert len(fleet.requests) == 1


def test_enrolling_again_on_purpose_replaces_the_identity(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    enrol(board, fleet)
    key = nvs(board, "id", "key")
    assert enrol(board, fleet, again=True) == Enrolment("n-000002", is_new=True)
    assert read_node_id(board) == "n-000002"
    assert nvs(board, "id", "key") != key


def test_a_new_identity_does_not_inherit_what_the_old_one_was_told(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    enrol(board, fleet)
    for namespace, name in (("cfg", "des"), ("cmd", "rec")):
        board.exec(f"import esp32\nesp32.NVS({namespace!r}).set_blob({name!r}, b'of the old one')")
        assert nvs(board, namespace, name)
    enrol(board, fleet, again=True)
    for namespace, name in (("cfg", "des"), ("cmd", "rec")):
        with pytest.raises(OSError, match="4354"):
            nvs(board, namespace, name)


def _trusted(board: VirtualBoard) -> dict[str, bytes]:
    said = board.exec(
        "import os\nif 'tuf' in os.listdir('/'):\n    for name in os.listdir('/tuf'):\n"
        "        print(name, open('/tuf/' + name).read())"
    )
    return {
        name: rest.encode() for name, _, rest in (line.partition(" ") for line in said.splitlines())
    }


def test_a_node_trusts_the_root_of_releases_of_the_fleet_that_enrolled_it_last(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    root = json.dumps({"signed": {"_type": "root", "version": 3}}).encode()
    fleet.spoil = {"tuf_root": base64.b64encode(root).decode()}
    enrol(board, fleet)
    assert _trusted(board) == {"root.json": root}
    board.put({"/tuf/timestamp.json": b"of the old one"})
    enrol(board, fleet, again=True)
    assert _trusted(board) == {"root.json": root}
    fleet.spoil = {}
    enrol(board, fleet, again=True)
    assert _trusted(board) == {}


@pytest.mark.parametrize("told", ["!", "e30=", 7, base64.b64encode(b'{"signed": 1}').decode()])
def test_a_root_of_releases_that_is_none_leaves_the_board_unenrolled(
    board: VirtualBoard, fleet: SmallFleet, told: object
) -> None:
    fleet.spoil = {"tuf_root": told}
    with pytest.raises(BenchError, match="a root of releases that is none"):
        enrol(board, fleet)
    assert read_node_id(board) is None


def test_a_refusal_leaves_an_enrolled_board_as_it_was(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    enrol(board, fleet)
    with pytest.raises(BenchError):
        enrol(board, fleet, again=True, token="wrong")
    assert read_node_id(board) == "n-000001"


@pytest.mark.parametrize(
    ("script", "operation"),
    [
        *(("set_blob('cert'", number) for number in range(1, 7)),
        *(("set_blob('node_id'", number) for number in (1, 2)),
    ],
)
def test_power_lost_during_enrolment_leaves_it_undone_and_repeatable(
    board: VirtualBoard, fleet: SmallFleet, script: str, operation: int
) -> None:
    """Cut at every flash operation of the scripts that write: until the node id is there, nothing is."""

    class Cut(VirtualBoard):
        def exec(self, code: str, *, patience_s: float = 30.0) -> str:
            if script in code:
                self._board.power_cut = PowerCutPlan(at_operation=operation, torn=True)
            return super().exec(code, patience_s=patience_s)

    with pytest.raises(BenchError):
        enrol(Cut(board.folder), fleet)
    assert read_node_id(board) is None or (script, operation) == ("set_blob('node_id'", 2)
    found = enrol(board, fleet)
    assert read_node_id(board) == found.node_id
    certificate = x509.load_der_x509_certificate(nvs(board, "id", "cert"))
    assert certificate.subject.rfc4514_string() == f"CN={found.node_id}"


def test_an_interrupted_enrolment_asks_again_with_the_same_key(
    board: VirtualBoard, fleet: SmallFleet
) -> None:
    fleet.instead = (201, {"node_id": "the answer never arrived"})
    with pytest.raises(BenchError):
        enrol(board, fleet)
    fleet.instead = None
    enrol(board, fleet)
    keys = [
        x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key()
        for request in fleet.requests
    ]
    assert keys[0] == keys[1]
    # Once enrolled, the next enrolment on purpose is one with a new key.
    enrol(board, fleet, again=True)
    last = x509.load_pem_x509_csr(fleet.requests[-1]["csr_pem"].encode()).public_key()
    assert last != keys[0]


def test_an_address_that_names_no_board_is_refused() -> None:
    with pytest.raises(BenchError, match="is not a board"):
        open_board("ttyUSB0")


def test_a_new_virtual_board_is_switched_on_at_the_present_time(tmp_path: Path) -> None:
    before_us = time.time_ns() // 1000
    open_board(f"virtual:{tmp_path / 'board'}").exec("print()")
    switched_on_us = Board(tmp_path / "board").now_us
    assert before_us <= switched_on_us < before_us + 600_000_000


def test_a_virtual_board_keeps_its_own_time_when_it_is_opened_again(tmp_path: Path) -> None:
    VirtualBoard(tmp_path / "board", start_utc_us=1_750_000_000_000_000).exec("print()")
    open_board(f"virtual:{tmp_path / 'board'}").exec("print()")
    assert Board(tmp_path / "board").now_us < 1_750_000_600_000_000
