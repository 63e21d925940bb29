"""A node that is revoked through the server is out of either broker within seconds, and does not come back with any of its certificates."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from brokers import Certificates, RunningBroker, node_client, wait_until
from cryptography import x509
from mqtt_services import NODE_ID
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.models import Certificate, CertificateState
from fleet_server.services import authority, credentials

LIMIT_S = 5.0


def test_a_revoked_nodes_session_ends_and_none_of_its_certificates_comes_back(
    broker: RunningBroker, certificates: Certificates, sessions: sessionmaker[Session]
) -> None:
    current, earlier = certificates.node(NODE_ID), certificates.node(NODE_ID)
    now = datetime.now(UTC)
    with sessions() as session, db.writing(session):
        for pair, state in (
            (earlier, CertificateState.SUPERSEDED),
            (current, CertificateState.CURRENT),
        ):
            pem = pair.certificate.read_text()
            known = x509.load_pem_x509_certificate(pem.encode())
            issued = authority.IssuedCertificate(
                NODE_ID, known.serial_number, known.not_valid_after_utc, pem
            )
            credentials.enter_issued(session, NODE_ID, issued, now=now, state=state)
    with node_client(broker, current) as client:
        assert client.connect(NODE_ID, keep_alive_s=600) == 0
        assert client.is_alive()

        with sessions() as session:
            credentials.revoke_node(session, NODE_ID, "stolen", certificates.folder, now=now)
        begun = time.monotonic()
        wait_until(lambda: not client.is_alive(), patience_s=LIMIT_S)
        assert time.monotonic() - begun < LIMIT_S

    broker.revocations_changed()
    for pair in (current, earlier):
        assert not _comes_in(broker, pair)
    with sessions() as session:
        states = {one.state for one in session.query(Certificate)}
    assert states == {CertificateState.REVOKED}


def _comes_in(broker: RunningBroker, pair: object) -> bool:
    try:
        with node_client(broker, pair) as client:
            return bool(client.connect(NODE_ID) == 0)
    except OSError:
        return False
