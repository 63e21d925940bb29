"""The words for certificates, keys and tokens."""

from __future__ import annotations

from flask_babel import gettext, lazy_gettext

from fleet_server.models import CertificateState
from fleet_server.services.authority_overview import KeyPlace
from fleet_server.services.credentials import CredentialsOfNode
from fleet_server.services.enrolment import TokenStanding
from fleet_server.wire.states import ConfigState

_CERTIFICATES = {
    CertificateState.CURRENT: lazy_gettext("in use"),
    CertificateState.OFFERED: lazy_gettext("offered"),
    CertificateState.SUPERSEDED: lazy_gettext("replaced, still good"),
    CertificateState.REVOKED: lazy_gettext("revoked"),
}
_KEYS = {
    KeyPlace.CLEAR: lazy_gettext("in the clear"),
    KeyPlace.LOCKED: lazy_gettext("encrypted"),
    KeyPlace.AWAY: lazy_gettext("not on this machine"),
}
_AUTHORITIES = {
    "root": lazy_gettext("root"),
    "next root": lazy_gettext("next root"),
    "old root": lazy_gettext("old root"),
    "issuing": lazy_gettext("issuing authority"),
    "services": lazy_gettext("authority of the services"),
    "revocations of nodes": lazy_gettext("revocation list of the nodes"),
    "revocations of services": lazy_gettext("revocation list of the services"),
}
_TOKENS = {
    TokenStanding.GOOD: lazy_gettext("good"),
    TokenStanding.USED_UP: lazy_gettext("used up"),
    TokenStanding.EXPIRED: lazy_gettext("expired"),
    TokenStanding.REVOKED: lazy_gettext("revoked"),
}


def certificate_word(state: str) -> str:
    return str(_CERTIFICATES[CertificateState(state)])


def authority_word(name: str) -> str:
    """Listeners and services go by the names of their files."""
    return str(_AUTHORITIES.get(name, name))


def key_place_word(place: KeyPlace | None) -> str:
    return "–" if place is None else str(_KEYS[place])


def token_word(standing: str) -> str:
    return str(_TOKENS[TokenStanding(standing)])


def credential_words(credentials: CredentialsOfNode) -> str:
    """What the node said of its certificate when it connected last."""
    if credentials.said_certificate is None:
        return str(gettext("nothing yet"))
    if credentials.said_state == ConfigState.ROLLED_BACK:
        return str(
            gettext(
                "It went back to the certificate before: the broker would not have the new one."
            )
        )
    if credentials.current is not None and credentials.said_certificate == credentials.current.name:
        return str(gettext("It connects with this certificate."))
    return str(gettext("It connects with another certificate."))
