"""Logging in at another place, by OpenID Connect: the code flow with PKCE, state and nonce. Knows no Flask and no database.

Discovery is read with each login, so that new keys and addresses hold at once. Signatures and claims are judged by Authlib and joserfc; what
is sent where, and what of an answer is believed, is said here. Times are wall clock: they are between us and other people's servers.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fleet_server.errors import Refused, Unavailable
from fleet_server.http_shared import outgoing
from fleet_server.models import Role
from fleet_server.services.external_logins import Vouched
from fleet_server.settings import Settings, SettingWrong

PATIENCE = timedelta(minutes=10)
"""For typing a password and finding a phone; a state that is older is good for nothing."""
_LEEWAY_S = 60
_LONGEST_BYTES = 256 * 1024
_LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, 2
_SECRET_BYTES = 32
# Signatures only that nobody can make who knows no private key: neither `none` nor those that a client's secret makes.
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_KEY_TYPES = frozenset({"RSA", "EC", "OKP"})


class NotVouched(Refused):
    """The other place did not say, in a way that can be believed, who this is."""

    code = "not_vouched"


class PlaceAway(Unavailable):
    """The other place cannot be asked."""

    code = "login_place_away"


@dataclass(frozen=True)
class Begun:
    """What the browser keeps until it comes back."""

    state: str
    nonce: str
    verifier: str
    begun_s: int


@dataclass(frozen=True)
class _Place:
    """What discovery says (OpenID Connect Discovery 1.0, 3)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    wants_secret_in_body: bool


def begin(settings: Settings, back: str, *, wall_now: datetime) -> tuple[Begun, str]:
    """A login that begins now: what to keep, and where to send the browser.

    Args:
        back: address of ours that it comes back to.

    Raises:
        PlaceAway: discovery cannot be read.
    """
    place = _discover(settings)
    begun = Begun(
        state=secrets.token_urlsafe(_SECRET_BYTES),
        nonce=secrets.token_urlsafe(_SECRET_BYTES),
        verifier=secrets.token_urlsafe(_SECRET_BYTES),
        begun_s=int(wall_now.timestamp()),
    )
    try:
        address = prepare_grant_uri(
            place.authorization_endpoint,
            settings.oidc_client_id,
            "code",
            redirect_uri=back,
            scope="openid profile",
            state=begun.state,
            nonce=begun.nonce,
            code_challenge=create_s256_code_challenge(begun.verifier),
            code_challenge_method="S256",
        )
    except ValueError as problem:
        raise PlaceAway(
            "%(issuer)s does not say where its parts are.", issuer=settings.oidc_issuer
        ) from problem
    return begun, str(address)


def finish(
    settings: Settings,
    begun: Begun,
    came: Mapping[str, str],
    back: str,
    *,
    wall_now: datetime,
) -> Vouched:
    """Who came back, from what stands in the address that the browser came back with.

    Raises:
        NotVouched: it is not the login that was begun, or what was said does not hold.
        PlaceAway: the other place cannot be asked.
    """
    if not hmac.compare_digest(came.get("state", "").encode(), begun.state.encode()):
        raise NotVouched("state is not that of the login that this browser began")
    if wall_now.timestamp() - begun.begun_s > PATIENCE.total_seconds():
        raise NotVouched("the login took too long")
    if came.get("iss", settings.oidc_issuer) != settings.oidc_issuer:  # RFC 9207
        raise NotVouched("the answer comes from another issuer")
    if "code" not in came:
        raise NotVouched("the answer has no code (%(said)r)", said=came.get("error", "nor an error")[:80])  # fmt: skip
    place = _discover(settings)
    tokens = _exchange(settings, place, came["code"], begun.verifier, back)
    keys = _json(settings, place.jwks_uri)
    return _vouched(settings, tokens, keys, nonce=begun.nonce, wall_now=wall_now)


def roles_by_value(settings: Settings) -> dict[str, Role]:
    """What values of the claim mean.

    Raises:
        SettingWrong: the setting does not say that.
    """
    pairs = [one.strip() for one in settings.oidc_roles.split(",") if one.strip()]
    try:
        split = [(value.strip(), role.strip()) for value, _, role in (one.rpartition("=") for one in pairs)]  # fmt: skip
        if not all(value for value, _ in split):
            raise ValueError("a value is missing")
        return {value: Role(role) for value, role in split}
    except ValueError as problem:
        raise SettingWrong(
            "oidc_roles must be like `fleet-ops=operator, fleet-audit=auditor`, with the roles %(roles)s.",
            roles=", ".join(Role),
        ) from problem


def _discover(settings: Settings) -> _Place:
    issuer = settings.oidc_issuer
    said = _json(settings, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if said.get("issuer") != issuer:
        raise PlaceAway(
            "oidc_issuer is %(issuer)s, but what is there calls itself %(said)r: write it the same way.",
            issuer=issuer,
            said=said.get("issuer"),
        )
    addresses = [said.get(n) for n in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(isinstance(one, str) and one.startswith(("https:", "http:")) for one in addresses):
        raise PlaceAway("%(issuer)s does not say where its parts are.", issuer=issuer)
    methods = said.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    authorization, token, jwks = map(str, addresses)
    return _Place(authorization, token, jwks, "client_secret_basic" not in methods)


def _exchange(
    settings: Settings, place: _Place, code: str, verifier: str, back: str
) -> dict[str, Any]:
    """The tokens that the code is good for, once."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    given = {"code": code, "code_verifier": verifier}
    if place.wants_secret_in_body:
        given |= {
            "client_id": settings.oidc_client_id,
            "client_secret": settings.oidc_client_secret,
        }
    else:  # RFC 6749, 2.3.1
        pair = f"{quote_plus(settings.oidc_client_id)}:{quote_plus(settings.oidc_client_secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    body = prepare_token_request("authorization_code", redirect_uri=back, **given)
    return _json(settings, place.token_endpoint, body=str(body).encode(), headers=headers)


def _vouched(
    settings: Settings,
    tokens: Mapping[str, Any],
    keys: Mapping[str, Any],
    *,
    nonce: str,
    wall_now: datetime,
) -> Vouched:
    """OpenID Connect Core 1.0, 3.1.3.7."""
    try:
        usable = [
            key
            for key in keys["keys"]
            if key.get("kty") in _KEY_TYPES and key.get("use", "sig") == "sig"
        ]
        key_set = KeySet.import_key_set({"keys": usable})
        token = jwt.decode(str(tokens["id_token"]), key_set, algorithms=sorted(_ALGORITHMS))
        claims = CodeIDToken(
            token.claims,
            token.header,
            options={
                "iss": {"essential": True, "value": settings.oidc_issuer},
                "aud": {"essential": True, "value": settings.oidc_client_id},
            },
            params={
                "nonce": nonce,
                "client_id": settings.oidc_client_id,
                "access_token": tokens.get("access_token"),
            },
        )
        claims.validate(now=int(wall_now.timestamp()), leeway=_LEEWAY_S)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise NotVouched("the ID token does not hold: %(problem)s", problem=problem) from problem
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.strip() or not subject.isprintable():
        raise NotVouched("the ID token names nobody")
    if len(subject) > _LONGEST_SUBJECT:
        raise NotVouched("the ID token names nobody in as many words as it may")
    return Vouched(settings.oidc_issuer, subject, _name_in(claims), _roles_in(settings, claims))


def _name_in(claims: Mapping[str, Any]) -> str:
    names = (claims.get(name) for name in ("preferred_username", "name", "sub"))
    return next(str(name) for name in names if isinstance(name, str) and name.strip())


def _roles_in(settings: Settings, claims: Mapping[str, Any]) -> frozenset[Role] | None:
    if not settings.oidc_roles_claim:
        return None
    said = claims.get(settings.oidc_roles_claim, [])
    values = said if isinstance(said, list) else [said]
    known = roles_by_value(settings)
    return frozenset(known[one] for one in values if isinstance(one, str) and one in known)


def _json(
    settings: Settings,
    address: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Raises PlaceAway when there is no answer, NotVouched when it is a refusal of what the browser brought."""
    try:
        answer = outgoing.ask(
            "GET" if body is None else "POST",
            address,
            allowed=outgoing.Allowed("oidc_hosts", settings.oidc_hosts),
            longest_bytes=_LONGEST_BYTES,
            body=body,
            headers={"Accept": "application/json", "User-Agent": "Stadtsensor", **(headers or {})},
        )
    except outgoing.NotReached as problem:
        raise PlaceAway(problem.said) from problem
    if body is not None and 400 <= answer.status < 500:
        raise NotVouched("the code was refused (%(status)s)", status=answer.status)
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError) as problem:
        raise PlaceAway(
            "%(address)s answered with something else than JSON.", address=address
        ) from problem
    if answer.status != 200 or not isinstance(said, dict):
        raise PlaceAway("%(host)s answered %(status)s.", host=address, status=answer.status)
    return said
