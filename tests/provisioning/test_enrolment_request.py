"""What the bench asks of the fleet, and every way in which the fleet's answer may be wrong."""

import http.server
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provisioning.enrolment import FleetAddress, draw_key, request_identity
from provisioning.errors import BenchError
from tests.provisioning.conftest import GOOD_TOKEN, LINK, Authority, SmallFleet, pem


def ask(
    fleet: SmallFleet, *, token: str = GOOD_TOKEN, url: str = "", ca: Path | None = None
) -> Any:
    address = FleetAddress(url or fleet.url, ca or fleet.ca_file)
    return request_identity(address, draw_key(), label="tree-01", model_id="tree-3", token=token)


def test_the_identity_is_key_and_certificate_of_one_node(fleet: SmallFleet) -> None:
    identity = ask(fleet)
    assert fleet.requests[0] | {"csr_pem": ""} == {
        "token": GOOD_TOKEN,
        "label": "tree-01",
        "model": "tree-3",
        "csr_pem": "",
    }
    key = serialization.load_der_private_key(identity.key, password=None)
    certificate = x509.load_der_x509_certificate(identity.certificate)
    assert certificate.public_key() == key.public_key()
    assert isinstance(key.public_key(), ec.EllipticCurvePublicKey)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(identity.authorities[0]))
    assert identity.node_id == "n-000001"
    assert vars(identity.link) == {**LINK, "renew": None}, "this server is an older one"


def test_the_key_never_leaves_the_bench(fleet: SmallFleet) -> None:
    ask(fleet)
    assert "PRIVATE" not in str(fleet.requests)


def test_a_wrong_token_is_refused_with_the_fleets_own_words(fleet: SmallFleet) -> None:
    with pytest.raises(
        BenchError, match=r"refused the enrolment: The enrolment token is not valid\.$"
    ):
        ask(fleet, token="wrong")


def test_a_server_of_another_ca_is_not_asked(fleet: SmallFleet, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    other.write_text(pem(Authority("Somebody else").certificate))
    with pytest.raises(BenchError, match=r"is not to be trusted with .*other\.crt"):
        ask(fleet, ca=other)
    assert fleet.requests == []


def test_a_server_of_another_name_is_not_asked(fleet: SmallFleet) -> None:
    with pytest.raises(BenchError, match="is not to be trusted"):
        ask(fleet, url=fleet.url.replace("localhost", "127.0.0.1"))
    assert fleet.requests == []


def test_a_server_that_is_not_there_is_named(fleet: SmallFleet) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"https://localhost:{free.getsockname()[1]}"
    with pytest.raises(BenchError, match=f"^{url} cannot be reached: Connection refused"):
        ask(fleet, url=url)


def test_a_port_that_speaks_no_tls_is_told_from_a_fleet_that_is_away(fleet: SmallFleet) -> None:
    """The pages' port, say."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Pages)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()
    try:
        with pytest.raises(BenchError, match="is not the fleet's node listener; give its port"):
            ask(fleet, url=f"https://localhost:{server.server_address[1]}")
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize("url", ["http://localhost:1", "localhost:1", "https://", "https://a:b"])
def test_an_address_that_is_none_is_refused(fleet: SmallFleet, url: str) -> None:
    with pytest.raises(BenchError, match="is not an address of the fleet"):
        ask(fleet, url=url)


def test_a_missing_or_empty_ca_file_is_named(fleet: SmallFleet, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is not there"):
        ask(fleet, ca=tmp_path / "missing.crt")
    empty = tmp_path / "empty.crt"
    empty.write_text("")
    with pytest.raises(BenchError, match="holds no certificate"):
        ask(fleet, ca=empty)


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ((500, b"<html>"), "answered 500"),
        ((201, b"\xff"), "answered 201"),
        ((201, []), "answered 201"),
        ((409, {"title": "Conflict"}), "refused the enrolment: Conflict"),
        ((429, {}), "HTTP status 429"),
        ((201, {}), "not an enrolment: 'node_id'"),
    ],
)
def test_an_answer_that_is_no_enrolment_is_refused(
    fleet: SmallFleet, instead: tuple[int, Any], said: str
) -> None:
    fleet.instead = instead
    with pytest.raises(BenchError, match=said):
        ask(fleet)


@pytest.mark.parametrize(
    "spoil",
    [
        {"node_id": "../etc"},
        {"node_id": "n-other"},
        {"certificate_pem": "nothing"},
        {"ca_pem": []},
        {"ca_pem": 3},
        {"link": {**LINK, "port": "8883"}},
        {"link": None},
    ],
)
def test_a_spoiled_answer_never_becomes_an_identity(
    fleet: SmallFleet, spoil: dict[str, Any]
) -> None:
    fleet.spoil = spoil
    with pytest.raises(BenchError):
        ask(fleet)


def test_a_certificate_for_another_key_is_refused(fleet: SmallFleet) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    fleet.spoil = {"certificate_pem": pem(fleet.authority.certify("n-000001", stranger))}
    with pytest.raises(BenchError, match="not for this node's id and key"):
        ask(fleet)
