"""A node's certificates over the years: signed anew in time, never both lost, and gone for good when revoked."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import (
    AuditEntry,
    Certificate,
    Configuration,
    Node,
    NodeStatus,
    Scope,
)
from fleet_server.services import authority, credentials, enrolment, publishing, rights
from fleet_server.services.credentials import RenewalRefused, Tended
from fleet_server.services.rights import Right

START = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
LATE = START + 500 * DAY  # past two thirds of two years
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    authority.initialise(folder)
    return folder


def request_pem(key: ec.EllipticCurvePrivateKey | None = None) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    signed = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def enrolled(session: Session, ca_dir: Path, *, model: str = "tree-3") -> str:
    token = enrolment.create_token(session, uses=1, now=START)
    node = enrolment.enrol_node(
        session,
        token=token,
        label=f"node-{next(_NUMBERS)}",
        model=model,
        csr_pem=request_pem(),
        ca_dir=ca_dir,
        now=START,
    )
    return node.node_id


def says(session: Session, node_id: str, certificate: str, state: str = "confirmed") -> None:
    """As if the node had connected."""
    with db.writing(session):
        status = session.get_one(NodeStatus, node_id)
        status.certificate, status.credential_state = certificate, state


def states(session: Session, node_id: str) -> list[str]:
    session.expire_all()
    query = select(Certificate.state).where(Certificate.node_id == node_id)
    return list(session.scalars(query.order_by(Certificate.id)))


def offered_der(session: Session, node_id: str) -> bytes | None:
    (state,) = publishing.desired_states(
        session, [node_id], now=START, secret_key=lambda: ""
    ).values()
    return state.certificate


def certificates(session: Session, node_id: str) -> list[Certificate]:
    query = select(Certificate).where(Certificate.node_id == node_id).order_by(Certificate.id)
    return list(session.scalars(query))


def revoked(ca_dir: Path, certificate: Certificate) -> bool:
    return int(certificate.serial, 16) in authority.revoked_serials(ca_dir)


def test_a_certificate_is_renewed_in_time_and_the_old_one_taken_back_after_the_new_one_was_seen(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    assert credentials.tend(session, ca_dir, now=START + 400 * DAY) == Tended()

    assert credentials.tend(session, ca_dir, now=LATE).signed == 1
    assert not credentials.tend(session, ca_dir, now=LATE + DAY), "it is signed once"
    old, new = certificates(session, node_id)
    assert offered_der(session, node_id) == new.der
    keys = [x509.load_der_x509_certificate(one.der).public_key() for one in (old, new)]
    assert keys[0] == keys[1]

    says(session, node_id, old.name)
    assert not credentials.tend(session, ca_dir, now=LATE + 2 * DAY)
    says(session, node_id, new.name, "trial")
    assert not credentials.tend(session, ca_dir, now=LATE + 2 * DAY), "it may go back"
    says(session, node_id, new.name)
    assert credentials.tend(session, ca_dir, now=LATE + 3 * DAY).seen == 1
    assert states(session, node_id) == ["superseded", "current"]
    assert offered_der(session, node_id) is None
    assert session.get_one(Node, node_id).certificate_serial == new.serial
    assert not revoked(ca_dir, old)

    assert not credentials.tend(session, ca_dir, now=LATE + 9 * DAY)
    assert credentials.tend(session, ca_dir, now=LATE + 11 * DAY).revoked == 1
    assert (revoked(ca_dir, old), revoked(ca_dir, new)) == (True, False)
    actions = (
        select(AuditEntry.action)
        .where(AuditEntry.subject == f"node {node_id}")
        .order_by(AuditEntry.seq)
    )
    assert session.scalars(actions.order_by(AuditEntry.seq)).all() == [
        "node_enrolled",
        "certificate_renewed",
        "certificate_in_use",
    ]


def test_a_node_that_goes_back_to_its_old_certificate_keeps_that(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    credentials.tend(session, ca_dir, now=LATE)
    old, new = certificates(session, node_id)
    says(session, node_id, new.name)
    credentials.tend(session, ca_dir, now=LATE + DAY)

    says(session, node_id, old.name, "rolled_back")
    credentials.tend(session, ca_dir, now=LATE + 30 * DAY)

    # What it holds is current again; what it is offered is another one, and only the one it gave up may go.
    assert states(session, node_id)[0] == "current"
    assert not revoked(ca_dir, old)


def test_a_certificate_is_not_taken_back_while_the_nodes_last_word_is_not_the_newer_one(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    credentials.tend(session, ca_dir, now=LATE)
    old, new = certificates(session, node_id)
    says(session, node_id, new.name)
    credentials.tend(session, ca_dir, now=LATE + DAY)

    says(session, node_id, old.name, "trial")
    credentials.tend(session, ca_dir, now=LATE + 30 * DAY)

    assert not revoked(ca_dir, old)


def test_an_offer_that_a_node_gave_up_is_followed_by_another_after_a_while(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    credentials.tend(session, ca_dir, now=LATE)
    old, first = certificates(session, node_id)
    says(session, node_id, old.name, "rolled_back")

    assert not credentials.tend(session, ca_dir, now=LATE + 3 * DAY)
    assert credentials.tend(session, ca_dir, now=LATE + 8 * DAY).signed == 1

    assert states(session, node_id) == ["current", "superseded", "offered"]
    assert not revoked(ca_dir, first), "it may have been taken all the same"
    assert not revoked(ca_dir, old)


def test_one_pass_over_many_nodes_takes_few_at_a_time(session: Session, ca_dir: Path) -> None:
    for _ in range(3):
        enrolled(session, ca_dir)
    assert credentials.renew_due(session, ca_dir, now=LATE, limit=2) == 2
    assert credentials.renew_due(session, ca_dir, now=LATE, limit=2) >= 1
    assert credentials.renew_due(session, ca_dir, now=LATE) == 0


def test_a_node_that_comes_with_a_certificate_that_ran_out_gets_one_and_only_one(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    asleep_until = START + 1000 * DAY
    (old,) = certificates(session, node_id)

    first = credentials.renew_for_bearer(session, old.der, ca_dir, now=asleep_until)
    again = credentials.renew_for_bearer(
        session, old.der, ca_dir, now=asleep_until + timedelta(minutes=5)
    )

    assert first.certificate is not None
    assert again == first
    assert first.roots is None
    assert states(session, node_id) == ["current", "offered"]
    lasts_until = x509.load_der_x509_certificate(first.certificate).not_valid_after_utc
    assert lasts_until > asleep_until + 600 * DAY


def test_a_node_whose_certificate_is_good_gets_no_other(session: Session, ca_dir: Path) -> None:
    node_id = enrolled(session, ca_dir)
    (good,) = certificates(session, node_id)
    given = credentials.renew_for_bearer(session, good.der, ca_dir, now=START + DAY)
    assert (given.certificate, given.roots) == (None, None)


def test_who_is_revoked_retired_or_of_another_key_gets_no_certificate(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    (own,) = certificates(session, node_id)
    stranger = authority.sign_node_request(ca_dir, request_pem(), node_id=node_id)
    stranger_der = x509.load_pem_x509_certificate(stranger.pem.encode()).public_bytes(
        serialization.Encoding.DER
    )
    with pytest.raises(RenewalRefused):
        credentials.renew_for_bearer(session, stranger_der, ca_dir, now=LATE)
    with db.writing(session):
        credentials.enter_issued(session, node_id, stranger, now=START, state="superseded")  # type: ignore[arg-type]
    with pytest.raises(RenewalRefused):
        credentials.renew_for_bearer(session, stranger_der, ca_dir, now=LATE)
    with db.writing(session):
        session.get_one(Node, node_id).state = "retired"
    with pytest.raises(RenewalRefused):
        credentials.renew_for_bearer(session, own.der, ca_dir, now=LATE)
    with db.writing(session):
        session.get_one(Node, node_id).state = "enrolled"
    # By hand at the authority, of which the database knows nothing.
    authority.revoke_node_serials(ca_dir, [int(own.serial, 16)])
    with pytest.raises(RenewalRefused):
        credentials.renew_for_bearer(session, own.der, ca_dir, now=LATE)


def signed_unseen(ca_dir: Path, node_id: str, known: Certificate) -> bytes:
    """A certificate for the node's key that the database does not know: it came from a backup that is older."""
    signed = authority.sign_node_again(ca_dir, known.der, node_id=node_id, now=START)
    loaded = x509.load_pem_x509_certificate(signed.pem.encode())
    return loaded.public_bytes(serialization.Encoding.DER)


def test_a_node_comes_back_with_a_certificate_that_was_signed_after_the_backup(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    (known,) = certificates(session, node_id)
    unseen = signed_unseen(ca_dir, node_id, known)
    asleep_until = START + 1000 * DAY

    given = credentials.renew_for_bearer(session, unseen, ca_dir, now=asleep_until)

    assert given.certificate not in (None, unseen)
    assert states(session, node_id) == ["current", "superseded", "offered"]
    credentials.revoke_node(session, node_id, "stolen", ca_dir, now=asleep_until)
    with pytest.raises(RenewalRefused):
        credentials.renew_for_bearer(session, unseen, ca_dir, now=asleep_until)


def test_a_revocation_reaches_certificates_that_only_the_authority_remembers(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    (known,) = certificates(session, node_id)
    unseen = x509.load_der_x509_certificate(signed_unseen(ca_dir, node_id, known))

    credentials.revoke_node(session, node_id, "stolen", ca_dir, now=START)

    assert unseen.serial_number in authority.revoked_serials(ca_dir)


def test_after_a_restore_nodes_that_the_list_shuts_out_are_revoked_and_no_others(
    session: Session, ca_dir: Path
) -> None:
    gone, renewed = enrolled(session, ca_dir), enrolled(session, ca_dir)
    (of_gone,), (of_renewed,) = certificates(session, gone), certificates(session, renewed)
    signed_unseen(ca_dir, renewed, of_renewed)  # which replaced the one that is taken back
    serials = [int(one.serial, 16) for one in (of_gone, of_renewed)]
    authority.revoke_node_serials(ca_dir, serials, now=START)

    taken_out = credentials.follow_list(session, ca_dir, now=START)

    assert gone in taken_out
    assert renewed not in taken_out
    assert (states(session, gone), states(session, renewed)) == (["revoked"], ["current"])
    assert session.get_one(Node, gone).state == "revoked"
    assert credentials.follow_list(session, ca_dir, now=START) == []


def test_a_revoked_node_is_out_with_all_its_certificates_and_gets_no_other(
    session: Session, ca_dir: Path
) -> None:
    node_id = enrolled(session, ca_dir)
    credentials.renew_node(session, node_id, ca_dir, now=START)

    credentials.revoke_node(session, node_id, "stolen at night", ca_dir, now=START)
    credentials.revoke_node(session, node_id, "stolen at night", ca_dir, now=START)

    assert states(session, node_id) == ["revoked", "revoked"]
    assert all(revoked(ca_dir, one) for one in certificates(session, node_id))
    assert session.get_one(Node, node_id).state == "revoked"
    assert session.get_one(Configuration, node_id).renewed_certificate is None
    query = select(AuditEntry).where(AuditEntry.action == "node_revoked").order_by(AuditEntry.seq)
    (entry,) = session.scalars(query.where(AuditEntry.subject == f"node {node_id}")).all()
    assert entry.details["reason"] == "stolen at night"
    with pytest.raises(RenewalRefused):
        credentials.renew_node(session, node_id, ca_dir, now=LATE)
    assert credentials.renew_due(session, ca_dir, now=LATE) == 0


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_revocation_wants_a_reason(session: Session, ca_dir: Path, reason: str) -> None:
    node_id = enrolled(session, ca_dir)
    with pytest.raises(credentials.RevocationWrong):
        credentials.revoke_node(session, node_id, reason, ca_dir, now=START)
    assert states(session, node_id) == ["current"]


def test_a_node_out_of_scope_is_not_there_to_be_revoked(session: Session, ca_dir: Path) -> None:
    node_id = enrolled(session, ca_dir, model="pond-1")
    rights.act_as(session, rights.Actor("anna", frozenset(Right), Scope.TREES))
    try:
        with pytest.raises(NotFound):
            credentials.revoke_node(session, node_id, "mine", ca_dir, now=START)
        assert node_id not in [row.node_id for row in credentials.next_to_expire(session, limit=99)]
    finally:
        rights.act_as(session, rights.MACHINE)
