"""How messages about alerts travel: mails by SMTP, webhooks by HTTPS POST, signed as Standard Webhooks says.

What people typed as an address is looked up and refused when it leads into a private network, and the connection goes to the very
address that was looked at; redirects are not followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any
from urllib.parse import unquote, urlsplit

from fleet_server.errors import FleetError
from fleet_server.models import AlertKind, Severity
from fleet_server.services import alert_words
from fleet_server.services.telling import DueDelivery
from fleet_server.settings import Settings, is_loopback

TIMEOUT_S = 10
_ANSWER_BYTES = 2000
_SMTPS_PORT, _SUBMISSION_PORT = 465, 587
_SUBJECT_LENGTH = 120
_OCCASIONS = {
    "opened": {"en": "New", "de": "Neu"},
    "escalated": {"en": "Still open", "de": "Noch offen"},
    "closed": {"en": "Over", "de": "Vorbei"},
    "test": {"en": "Test", "de": "Probe"},
}
_TEST = {
    "en": "This is a test: messages of the fleet arrive here.",
    "de": "Dies ist eine Probe: Nachrichten der Flotte kommen hier an.",
}
_MORE = {"en": "… and {more} more", "de": "… und {more} weitere"}


class NotSent(FleetError):
    """It did not arrive; `is_final`: and never will like this."""

    code = "message_not_sent"

    def __init__(self, sentence: str, *, is_final: bool = False) -> None:
        super().__init__(sentence)
        self.is_final = is_final


# ---------------------------------------------------------------------------------------------------------------- mail


def send_mail(due: DueDelivery, settings: Settings) -> None:
    """Hand the message to the mail server.

    Raises:
        NotSent: it was not taken; says why.
    """
    if not settings.smtp_url:
        raise NotSent("No mail server is set (smtp_url).")
    parts = urlsplit(settings.smtp_url)
    host = parts.hostname or ""
    try:
        with _connected(parts.scheme, host, parts.port) as server:
            if parts.scheme == "smtp" and not is_loopback(host):
                server.starttls(context=ssl.create_default_context())
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            refused = server.send_message(compose_mail(due, settings))
    except smtplib.SMTPRecipientsRefused as problem:
        raise NotSent(f"The mail server refuses {', '.join(problem.recipients)}.") from problem
    except smtplib.SMTPResponseException as problem:
        raise NotSent(
            f"The mail server answered {problem.smtp_code}: {_text(problem.smtp_error)}"
        ) from problem
    except (OSError, smtplib.SMTPException) as problem:
        raise NotSent(f"The mail server {host} cannot be used: {problem}") from problem
    if refused:
        raise NotSent(f"The mail server refuses {', '.join(refused)}; the others have it.", is_final=True)  # fmt: skip


def _connected(scheme: str, host: str, port: int | None) -> smtplib.SMTP:
    if scheme == "smtps":
        return smtplib.SMTP_SSL(
            host,
            port or _SMTPS_PORT,
            timeout=TIMEOUT_S,
            context=ssl.create_default_context(),
        )
    return smtplib.SMTP(host, port or _SUBMISSION_PORT, timeout=TIMEOUT_S)


def compose_mail(due: DueDelivery, settings: Settings) -> EmailMessage:
    """The mail in the recipient's language; the same delivery has the same Message-ID, so that a repeated one is known as that."""
    language = due.recipient.language
    lines = _lines(due.content, language)
    mail = EmailMessage()
    mail["From"] = settings.mail_from
    mail["To"] = ", ".join(one.strip() for one in (due.address or "").split(","))
    occasion = _OCCASIONS[due.occasion][language]
    about = lines[0].partition("\n")[0] if lines else _TEST[language]
    more = f" (+{len(lines) - 1})" if len(lines) > 1 else ""
    mail["Subject"] = _one_line(f"[Stadtsensor] {occasion}: {about}")[:_SUBJECT_LENGTH] + more
    mail["Date"] = format_datetime(due.made_at)
    domain = urlsplit(settings.public_url).hostname or "stadtsensor"
    mail["Message-ID"] = make_msgid(f"delivery-{due.id}", domain=domain)
    mail.replace_header(
        "Message-ID", f"<delivery-{due.id}.{int(due.made_at.timestamp())}@{domain}>"
    )
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    body = "\n\n".join(lines) if lines else _TEST[language]
    mail.set_content(f"{body}\n\n{settings.public_url}/fleet/alerts\n")
    return mail


def _lines(content: Sequence[Mapping[str, Any]], language: str) -> list[str]:
    lines = []
    for one in content:
        if "more" in one:
            lines.append(_MORE[language].format(more=one["more"]))
            continue
        kind, severity = AlertKind(one["kind"]), Severity(one["severity"])
        subject = alert_words.subject_word(one["subject"], one["label"], language)
        head = f"{subject}: {alert_words.kind_word(kind, language)} ({alert_words.severity_word(severity, language)})"
        lines.append(
            f"{_one_line(head)}\n{_one_line(alert_words.sentence(kind, one['details'], language))}"
        )
    return lines


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


# ------------------------------------------------------------------------------------------------------------- webhooks


def send_webhook(
    due: DueDelivery, secret: bytes, settings: Settings, *, wall_now: datetime
) -> None:
    """POST the message as JSON; any answer but 2xx is a failure, 410 Gone a final one (Standard Webhooks, "Operational
    considerations").

    Raises:
        NotSent: it was not taken, or its address leads where nothing of ours may go.
    """
    parts = urlsplit(due.recipient.address)
    host = parts.hostname or ""
    body = json.dumps(
        {
            "type": f"alert.{due.occasion}",
            "timestamp": due.made_at.isoformat(),
            "data": {"alerts": list(due.content), "url": f"{settings.public_url}/fleet/alerts"},
        },
        ensure_ascii=True,
        separators=(",", ":"),
    ).encode()
    message_id, timestamp = f"delivery_{due.id}", str(int(wall_now.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Stadtsensor",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(secret, message_id, timestamp, body),
    }
    is_allowed = _is_allow_listed(host, settings)
    if parts.scheme != "https" and not is_allowed:
        raise NotSent(f"{host} is not spoken to without TLS.", is_final=True)
    address = look_up(host, parts.port or (443 if parts.scheme == "https" else 80), settings)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Connection(host, address, is_tls=parts.scheme == "https")
    try:
        connection.request("POST", target, body=body, headers=headers)
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise NotSent(f"{host} cannot be reached: {problem}") from problem
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise NotSent(f"{host} answered {answer.status}.", is_final=answer.status == 410)


def sign(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The header `webhook-signature` (https://github.com/standard-webhooks/standard-webhooks, "Signature scheme")."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def look_up(host: str, port: int, settings: Settings) -> tuple[str, int]:
    """One address of this host to connect to.

    Raises:
        NotSent: there is none, or any of them is private, loopback, link-local or otherwise not public, and not allow-listed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise NotSent(f"{host} is not known to the name servers.") from problem
    addresses = [str(one[4][0]).partition("%")[0] for one in found]
    if not _is_allow_listed(host, settings):
        for address in addresses:
            if not _is_public(address) and not _is_allow_listed(address, settings):
                raise NotSent(
                    f"{host} leads to {address}, which is no public address; webhook_hosts can allow it.",
                    is_final=True,
                )
    return addresses[0], port


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        address = mapped
    return address.is_global and not address.is_multicast


def _is_allow_listed(host: str, settings: Settings) -> bool:
    for one in settings.webhook_hosts.split(","):
        allowed = one.strip()
        if not allowed:
            continue
        if host == allowed:
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(allowed, strict=False):
                return True
        except ValueError:
            continue  # one of the two is a name
    return False


class _Connection(http.client.HTTPConnection):
    """To an address that was looked up before, under the name that it was looked up for."""

    def __init__(self, host: str, address: tuple[str, int], *, is_tls: bool) -> None:
        super().__init__(host, address[1], timeout=TIMEOUT_S)
        self._address = address
        self._is_tls = is_tls

    def connect(self) -> None:
        self.sock = socket.create_connection(self._address, TIMEOUT_S)
        if self._is_tls:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def _text(error: bytes | str) -> str:
    text = error.decode("utf-8", "replace") if isinstance(error, bytes) else error
    return _one_line(text)
