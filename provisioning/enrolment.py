"""Giving a node its identity: key and request at the bench, certificate from the fleet, both into the board's NVS.

The key is drawn here, because stock MicroPython cannot make a certificate request; it goes to the board and nowhere
else, and it is there before the fleet is asked. The board counts as enrolled only when `node_id` is in its NVS, and that
is written last. So whatever is interrupted leaves an unenrolled board (or the old identity), and enrolling it once more
asks with the same key and gets the identity that the fleet had already given it. What was written is read back.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hardware.catalogue import load_node_model
from provisioning.boards import BenchBoard
from provisioning.errors import BenchError, UsedWrongly
from provisioning.flashing import hashes_on
from provisioning.node_configuration import Link, encode_map, link_map, node_map
from provisioning.scripts import ask, base64_literal

_PATH = "/node/v1/"
_GOOD = (http.HTTPStatus.OK, http.HTTPStatus.CREATED)
_NODE_ID = re.compile(r"[a-z0-9-]{3,32}")
# A bench waits at a person's side; a server that does not answer in this time is not there.
_ANSWER_TIMEOUT_S = 20.0
_LONGEST_ANSWER_BYTES = 64 * 1024
# Where a key waits on the board while the fleet is asked to certify it.
_NEXT_KEY = "next_key"
_LONGEST_BLOB_BYTES = 1900
_LABEL_MAX_LENGTH = 64
_ROOT_PATH = "/tuf/root.json"


@dataclass(frozen=True)
class FleetAddress:
    """The fleet's node listener, and the CA file that its certificate must come from."""

    url: str
    ca_file: Path


@dataclass(frozen=True)
class Identity:
    """What makes a node that node; certificates and key in DER."""

    node_id: str
    key: bytes
    certificate: bytes
    authorities: tuple[bytes, ...]
    link: Link
    tuf_root: bytes | None = None
    """The first root of releases that the node trusts (TUF metadata); None where the fleet has no releases."""


@dataclass(frozen=True)
class Enrolment:
    """The outcome: the node's id, and whether it was drawn now or found on the board."""

    node_id: str
    is_new: bool


def check_request(fleet: FleetAddress, *, label: str) -> None:
    """Before anything is written to a board: can this be asked of this fleet at all?

    Raises:
        UsedWrongly: the address is none, the CA file is not there or none, or no node can have this label.
    """
    check_fleet(fleet)
    check_label(label)


def check_fleet(fleet: FleetAddress) -> None:
    """Can anything be asked of this fleet? Raises UsedWrongly: its address is none, or the CA file cannot be used."""
    _connect(fleet).close()


def check_label(label: str) -> None:
    """Raises UsedWrongly: no node can have this label."""
    if not (1 <= len(label) <= _LABEL_MAX_LENGTH and label.isprintable()):
        raise UsedWrongly(f"A label has 1 to {_LABEL_MAX_LENGTH} printable characters.")


def enrol_node(
    board: BenchBoard,
    fleet: FleetAddress,
    *,
    label: str,
    model_id: str,
    token: str,
    wifi: Sequence[tuple[str, str]],
    again: bool = False,
    has_panel: bool = True,
) -> Enrolment:
    """Give the board an identity and its configuration.

    A board that has an identity keeps it and the fleet is not asked, unless `again`. `has_panel`: a lamp and a button are there.

    Raises:
        BenchError: the fleet refused or cannot be reached or trusted, or the board failed; the board is then
            unenrolled, or enrolled as it was before when the fleet did not answer. Or the board is another node.
        CatalogueError: the model is not known.
    """
    present = None if again else present_enrolment(board, label=label, model_id=model_id)
    if present is not None:
        return present
    load_node_model(model_id)
    identity = request_identity(
        fleet, key_on_board(board), label=label, model_id=model_id, token=token
    )
    finish_enrolment(
        board, identity, label=label, model_id=model_id, wifi=wifi, has_panel=has_panel
    )
    return Enrolment(identity.node_id, is_new=True)


def present_enrolment(board: BenchBoard, *, label: str, model_id: str) -> Enrolment | None:
    """The identity that the board has under this label; None when it has none.

    Raises:
        BenchError: the board is another node, or was enrolled as another model.
    """
    node_id = read_node_id(board)
    if node_id is None:
        return None
    named = read_blob(board, "id", "label").decode("utf-8", "replace")
    if named and named != label:
        raise BenchError(
            f"The board is {named} ({node_id}), not {label}; take another board, or wipe this one first with"
            f" provision node wipe --node-id {node_id}."
        )
    known = _known_model(board)
    if known not in (None, model_id):
        raise BenchError(
            f"{named or node_id} was enrolled as {known}, not {model_id}; name that model, or enrol it anew as {model_id} with"
            " provision node enrol --again."
        )
    return Enrolment(node_id, is_new=False)


def _known_model(board: BenchBoard) -> str | None:
    """The model that the board was enrolled as; None when its configuration does not tell."""
    try:
        content = cbor2.loads(read_blob(board, "cfg", "node"))
    except (cbor2.CBORDecodeError, ValueError):
        return None
    return content.get("model") if isinstance(content, dict) else None


def finish_enrolment(
    board: BenchBoard,
    identity: Identity,
    *,
    label: str,
    model_id: str,
    wifi: Sequence[tuple[str, str]],
    has_panel: bool = True,
) -> None:
    """Write an identity that the fleet has given, with the model's configuration, and read all of it back.

    Raises:
        BenchError: the board failed; it is then not enrolled.
        CatalogueError: the model is not known.
    """
    write_enrolment(
        board,
        identity,
        label=label,
        configuration={
            "link": encode_map(link_map(identity.link, wifi)),
            "node": encode_map(node_map(load_node_model(model_id), has_panel=has_panel)),
        },
    )


def read_node_id(board: BenchBoard) -> str | None:
    """The id that the board is enrolled under; None when it is not."""
    return read_blob(board, "id", "node_id").decode() or None


def draw_key() -> ec.EllipticCurvePrivateKey:
    """A new key for a node."""
    return ec.generate_private_key(ec.SECP256R1())


def request_identity(
    fleet: FleetAddress, key: ec.EllipticCurvePrivateKey, *, label: str, model_id: str, token: str
) -> Identity:
    """Have the fleet certify a node's key.

    Raises:
        UsedWrongly: the fleet's address or CA file cannot be used.
        BenchError: not reachable, not trusted, refused, or an answer that is not about our key.
    """
    answer = ask_fleet(
        fleet, label=label, model_id=model_id, token=token, csr_pem=certificate_request(key, label)
    )
    return identity_from(answer, key)


def certificate_request(key: ec.EllipticCurvePrivateKey, label: str) -> str:
    """The request to certify a node's key, as PEM; no secret."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def ask_fleet(
    fleet: FleetAddress, *, label: str, model_id: str, token: str, csr_pem: str
) -> dict[str, Any]:
    """The fleet's answer to a certificate request: an enrolment, not yet checked; no secret.

    Raises: as `request_identity`.
    """
    content = {"token": token, "label": label, "model": model_id, "csr_pem": csr_pem}
    return ask_listener(fleet, "enrol", content, what="enrolment")


def write_enrolment(
    board: BenchBoard, identity: Identity, *, label: str, configuration: Mapping[str, bytes]
) -> None:
    """Write identity and configuration to the board's NVS, the node id last, and read them back.

    Raises:
        BenchError: the board failed, or has not kept what was written.
    """
    blobs = {
        "key": identity.key,
        "cert": identity.certificate,
        **{f"ca{index}": der for index, der in enumerate(identity.authorities)},
        "label": label.encode(),
    }
    written = {("id", name): blob for name, blob in blobs.items()}
    written |= {("cfg", name): blob for name, blob in configuration.items()}
    script = _begin_script(blobs, configuration, has_root=identity.tuf_root is not None)
    _write_and_check(board, script, written)
    if identity.tuf_root is not None:
        _write_root(board, identity.tuf_root)
    _write_and_check(
        board, _end_script(identity.node_id), {("id", "node_id"): identity.node_id.encode()}
    )


def _write_root(board: BenchBoard, root: bytes) -> None:
    board.put({_ROOT_PATH: root})
    if hashes_on(board, [_ROOT_PATH])[_ROOT_PATH] != hashlib.sha256(root).hexdigest():
        raise BenchError(
            "The board has not kept the root of releases as it was written; enrol it again, and put it aside when that"
            " happens twice."
        )


def key_on_board(board: BenchBoard) -> ec.EllipticCurvePrivateKey:
    """The key of an enrolment that was interrupted, or a new one, on the board before anybody is told of it."""
    kept = waiting_key(board)
    if kept is not None:
        return kept
    key = draw_key()
    board.exec(
        "from binascii import a2b_base64\nfrom esp32 import NVS\nidentity = NVS('id')\n"
        f"identity.set_blob({_NEXT_KEY!r}, {base64_literal(_der(key))})\nidentity.commit()\n"
    )
    return key


def waiting_key(board: BenchBoard) -> ec.EllipticCurvePrivateKey | None:
    """The key of an enrolment that has begun and not ended; None when there is none."""
    try:
        key = serialization.load_der_private_key(read_blob(board, "id", _NEXT_KEY), password=None)
    except ValueError:
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def read_blob(board: BenchBoard, namespace: str, name: str) -> bytes:
    """A blob of the board's NVS; empty when it is not there."""
    lines = ask(
        board,
        f"""
from binascii import hexlify
from esp32 import NVS
buffer = bytearray({_LONGEST_BLOB_BYTES})
try:
    size = NVS({namespace!r}).get_blob({name!r}, buffer)
except OSError:
    size = 0
say(hexlify(memoryview(buffer)[:size]).decode())
""",
    )
    return bytes.fromhex("".join(lines))


def _write_and_check(
    board: BenchBoard, script: str, written: Mapping[tuple[str, str], bytes]
) -> None:
    """Run a script, then read back what it has written by namespace and name."""
    lines = ask(board, script + _READ_BACK.format(names=tuple(written), size=_LONGEST_BLOB_BYTES))
    if lines != [hashlib.sha256(blob).hexdigest() for blob in written.values()]:
        raise BenchError(
            "The board has not kept its identity as it was written; enrol it again, and put it aside when that happens"
            " twice."
        )


_SCRIPT_HEAD = """
import hashlib, os
from binascii import a2b_base64, hexlify
from esp32 import NVS
def erase(space, *names):
    for name in names:
        try:
            space.erase_key(name)
        except OSError:
            pass
ROOT = '/tuf'
identity = NVS('id')
configuration = NVS('cfg')
"""
_READ_BACK = """
buffer = bytearray({size})
for namespace, name in {names!r}:
    size = NVS(namespace).get_blob(name, buffer)
    say(hexlify(hashlib.sha256(memoryview(buffer)[:size]).digest()).decode())
"""


def _begin_script(
    blobs: Mapping[str, bytes], configuration: Mapping[str, bytes], *, has_root: bool
) -> str:
    """MicroPython that unenrols the board and stores everything but the node id."""
    steps = [
        "erase(identity, 'node_id')",
        "identity.commit()",
        "erase(identity, 'ca1', 'held', 'new0', 'new1')",
        # What an earlier identity was told to be like and to do holds for that one.
        "erase(configuration, 'des')",
        "erase(NVS('cmd'), 'rec')",
        # So does whose releases it trusted.
        "for name in os.listdir(ROOT) if 'tuf' in os.listdir('/') else ():\n    os.remove(ROOT + '/' + name)",
        *(["if 'tuf' not in os.listdir('/'):\n    os.mkdir(ROOT)"] if has_root else []),
        *[f"identity.set_blob({name!r}, {base64_literal(blobs[name])})" for name in blobs],
        "identity.commit()",
        *[
            f"configuration.set_blob({name!r}, {base64_literal(configuration[name])})"
            for name in configuration
        ],
        "configuration.commit()",
    ]
    return "\n".join([_SCRIPT_HEAD, *steps, ""])


def _end_script(node_id: str) -> str:
    """MicroPython that enrols the board."""
    steps = [
        f"identity.set_blob('node_id', {node_id.encode()!r})",
        "identity.commit()",
        f"erase(identity, {_NEXT_KEY!r})",
        "identity.commit()",
    ]
    return "\n".join([_SCRIPT_HEAD, *steps, ""])


def ask_listener(
    fleet: FleetAddress, verb: str, content: Mapping[str, str], *, what: str
) -> dict[str, Any]:
    """What the fleet answers when the bench asks it to do something (`what`, in the words of a refusal).

    Raises:
        UsedWrongly: the fleet's address or CA file cannot be used.
        BenchError: not reachable, not trusted, or refused.
    """
    connection = _connect(fleet)
    try:
        connection.request(
            "POST",
            _PATH + verb,
            body=json.dumps(content),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        response = connection.getresponse()
        body = response.read(_LONGEST_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        raise BenchError(
            f"{fleet.url} is not to be trusted with {fleet.ca_file}: {error.verify_message.rstrip('.')}; ask the fleet's operator"
            " for the right address and root.crt."
        ) from error
    except ssl.SSLError as error:
        raise BenchError(
            f"What answers at {fleet.url} is not the fleet's node listener; give its port, not that of the pages (8443 unless"
            " the operator says otherwise)."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(
            f"{fleet.url} cannot be reached: {_in_words(error)}; see to address and network (at the server: does fleet serve run?)"
            " and repeat the command."
        ) from error
    finally:
        connection.close()
    return _answer(response.status, body, fleet, what)


def _connect(fleet: FleetAddress) -> http.client.HTTPSConnection:
    host, port = _host_and_port(fleet.url)
    try:
        context = ssl.create_default_context(cafile=str(fleet.ca_file))
    except FileNotFoundError as error:
        raise UsedWrongly(f"The CA file {fleet.ca_file} is not there.") from error
    except (OSError, ssl.SSLError) as error:
        raise UsedWrongly(f"The CA file {fleet.ca_file} holds no certificate.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        return http.client.HTTPSConnection(host, port, timeout=_ANSWER_TIMEOUT_S, context=context)
    except http.client.InvalidURL as error:
        raise _no_address(fleet.url) from error


def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:
        host = None
    if not host or address.scheme != "https":
        raise _no_address(url)
    return host, port


def _no_address(url: str) -> UsedWrongly:
    return UsedWrongly(f"{url} is not an address of the fleet; it looks like https://HOST:PORT.")


def _answer(status: int, body: bytes, fleet: FleetAddress, what: str) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BenchError(f"{fleet.url} answered {status} with something that is no {what}.")
    if status not in _GOOD:
        reason = content.get("detail") or content.get("title") or f"HTTP status {status}"
        raise BenchError(f"The fleet refused the {what}: {str(reason).rstrip('.')}.")
    return content


def identity_from(answer: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> Identity:
    """Check the fleet's answer against our key before anything goes to the board.

    Raises:
        BenchError: it is no enrolment, or not about this key.
    """
    certificate, authorities, link = check_answer(answer, key.public_key())
    return Identity(
        node_id=answer["node_id"],
        key=_der(key),
        certificate=certificate.public_bytes(serialization.Encoding.DER),
        authorities=tuple(ca.public_bytes(serialization.Encoding.DER) for ca in authorities),
        link=link,
        tuf_root=_root_of_releases(answer),
    )


def check_answer(
    answer: Mapping[str, Any], public_key: object
) -> tuple[x509.Certificate, list[x509.Certificate], Link]:
    """Certificate, authorities and link of an answer that is about this key.

    Raises:
        BenchError: it is no enrolment, or not about this key.
    """
    try:
        node_id = answer["node_id"]
        certificate = x509.load_pem_x509_certificate(answer["certificate_pem"].encode())
        authorities = [x509.load_pem_x509_certificate(pem.encode()) for pem in answer["ca_pem"]]
        link = Link.from_answer(answer["link"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BenchError(f"The fleet's answer is not an enrolment: {_in_words(error)}.") from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not isinstance(node_id, str) or not _NODE_ID.fullmatch(node_id):
        raise BenchError(f"The fleet gave a node id that is none: {node_id!r}.")
    if [name.value for name in names] != [node_id] or certificate.public_key() != public_key:
        raise BenchError("The fleet's certificate is not for this node's id and key.")
    if not 1 <= len(authorities) <= 2:
        raise BenchError(f"The fleet names {len(authorities)} CAs, but a node pins one or two.")
    return certificate, authorities, link


def _root_of_releases(answer: Mapping[str, Any]) -> bytes | None:
    """TUF metadata of a root; the fleet is trusted with it as with the rest of the identity."""
    told = answer.get("tuf_root")
    if told is None:
        return None
    try:
        root = base64.b64decode(told, validate=True)
        is_root = json.loads(root)["signed"]["_type"] == "root"
    except (ValueError, TypeError, KeyError, RecursionError):
        is_root = False
    if not is_root:
        raise BenchError("The fleet's answer has a root of releases that is none.")
    return root


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _in_words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.rstrip(".") or type(error).__name__
