"""How messages about alerts travel: mails by SMTP, webhooks by HTTPS POST, signed as Standard Webhooks says.

What people typed as an address is looked up and refused when it leads into a private network, and the connection goes to the very
address that was looked at; redirects are not followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any
from urllib.parse import unquote, urlsplit

from fleet_server.errors import FleetError
from fleet_server.http_shared import outgoing
from fleet_server.models import AlertKind, AlertRecipient, Severity
from fleet_server.services import alert_words
from fleet_server.services.accounts import MailedReset
from fleet_server.services.telling import DueDelivery
from fleet_server.settings import Settings, is_loopback

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
_RESET = {"en": "New password", "de": "Neues Passwort"}
_RESET_BODY = {
    "en": "Somebody, probably you, asked for a new password of {name}.\n\n{link}\n\nThe link is good for an hour, and once. If you asked for nothing, do nothing: your password stays as it is.\n",
    "de": "Jemand, wahrscheinlich Sie, hat um ein neues Passwort für {name} gebeten.\n\n{link}\n\nDer Link gilt eine Stunde und einmal. Haben Sie um nichts gebeten, tun Sie nichts: Ihr Passwort bleibt, wie es ist.\n",
}
_MORE = {"en": "… and {more} more", "de": "… und {more} weitere"}


class NotSent(FleetError):
    """It did not arrive; `is_final`: and never will like this."""

    code = "message_not_sent"

    def __init__(self, sentence: str, /, *, is_final: bool = False, **fields: object) -> None:
        super().__init__(sentence, **fields)
        self.is_final = is_final


# ---------------------------------------------------------------------------------------------------------------- mail


def send_mail(mail: EmailMessage, settings: Settings) -> None:
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
            refused = server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as problem:
        raise NotSent(
            "The mail server refuses %(refused)s.", refused=", ".join(problem.recipients)
        ) from problem
    except smtplib.SMTPResponseException as problem:
        raise NotSent(
            "The mail server answered %(status)s: %(answer)s",
            status=problem.smtp_code,
            answer=_text(problem.smtp_error),
        ) from problem
    except (OSError, smtplib.SMTPException) as problem:
        raise NotSent(
            "The mail server %(host)s cannot be used: %(problem)s", host=host, problem=problem
        ) from problem
    if refused:
        raise NotSent("The mail server refuses %(refused)s; the others have it.", refused=", ".join(refused), is_final=True)  # fmt: skip


def send_reset(begun: MailedReset, due: DueDelivery, language: str, settings: Settings) -> None:
    """The link with which somebody sets a new password; the code stands behind `#`, which no server is sent.

    Raises:
        NotSent: it was not taken; says why.
    """
    mail = _new_mail(due, begun.mail, settings)
    mail["Subject"] = f"[Stadtsensor] {_RESET[language]}"
    link = f"{settings.public_url}/reset#{begun.code}"
    mail.set_content(_RESET_BODY[language].format(name=begun.name, link=link))
    send_mail(mail, settings)


def _connected(scheme: str, host: str, port: int | None) -> smtplib.SMTP:
    if scheme == "smtps":
        return smtplib.SMTP_SSL(
            host,
            port or _SMTPS_PORT,
            timeout=outgoing.TIMEOUT_S,
            context=ssl.create_default_context(),
        )
    return smtplib.SMTP(host, port or _SUBMISSION_PORT, timeout=outgoing.TIMEOUT_S)


def compose_mail(due: DueDelivery, recipient: AlertRecipient, settings: Settings) -> EmailMessage:
    """The mail in the recipient's language; the same delivery has the same Message-ID, so that a repeated one is known as that."""
    language = recipient.language
    lines = _lines(due.content, language, settings.public_url)
    mail = _new_mail(due, due.address or "", settings)
    occasion = _OCCASIONS[due.occasion][language]
    about = lines[0].partition("\n")[0] if lines else _TEST[language]
    more = f" (+{len(lines) - 1})" if len(lines) > 1 else ""
    mail["Subject"] = _one_line(f"[Stadtsensor] {occasion}: {about}")[:_SUBJECT_LENGTH] + more
    body = "\n\n".join(lines) if lines else _TEST[language]
    mail.set_content(f"{body}\n\n{settings.public_url}/fleet/alerts\n")
    return mail


def _new_mail(due: DueDelivery, addresses: str, settings: Settings) -> EmailMessage:
    """Headers that every mail has."""
    mail = EmailMessage()
    mail["From"] = settings.mail_from
    mail["To"] = ", ".join(one.strip() for one in addresses.split(","))
    mail["Date"] = format_datetime(due.made_at)
    domain = urlsplit(settings.public_url).hostname or "stadtsensor"
    mail["Message-ID"] = make_msgid(f"delivery-{due.id}", domain=domain)
    mail.replace_header(
        "Message-ID", f"<delivery-{due.id}.{int(due.made_at.timestamp())}@{domain}>"
    )
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    return mail


def _lines(content: Sequence[Mapping[str, Any]], language: str, public_url: str) -> list[str]:
    lines = []
    for one in content:
        if "more" in one:
            lines.append(_MORE[language].format(more=one["more"]))
            continue
        kind, severity = AlertKind(one["kind"]), Severity(one["severity"])
        subject = alert_words.subject_word(one["subject"], one["label"], language)
        head = f"{subject}: {alert_words.kind_word(kind, language)} ({alert_words.severity_word(severity, language)})"
        told = [head, alert_words.sentence(kind, one["details"], language)]
        page = alert_words.page_of(one["subject"])
        told += [f"{public_url}{page}"] if page else []
        lines.append("\n".join(map(_one_line, told)))
    return lines


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


# ------------------------------------------------------------------------------------------------------------- webhooks


def send_webhook(
    due: DueDelivery, address: str, secret: bytes, settings: Settings, *, wall_now: datetime
) -> None:
    """POST the message as JSON; any answer but 2xx is a failure, 410 Gone a final one (Standard Webhooks, "Operational
    considerations").

    Raises:
        NotSent: it was not taken, or its address leads where nothing of ours may go.
    """
    host = urlsplit(address).hostname or ""
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
    try:
        answer = outgoing.ask(
            "POST",
            address,
            allowed=_allowed(settings),
            longest_bytes=_ANSWER_BYTES,
            body=body,
            headers=headers,
        )
    except outgoing.NotReached as problem:
        raise NotSent(problem.said, is_final=problem.is_final) from problem
    if not 200 <= answer.status < 300:
        raise NotSent(
            "%(host)s answered %(status)s.",
            host=host,
            status=answer.status,
            is_final=answer.status == 410,
        )


def sign(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The header `webhook-signature` (https://github.com/standard-webhooks/standard-webhooks, "Signature scheme")."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def look_up(host: str, port: int, settings: Settings) -> tuple[str, int]:
    """One address of this host to connect to.

    Raises:
        NotSent: there is none, or it leads where nothing of ours may go.
    """
    try:
        return outgoing.look_up(host, port, _allowed(settings))
    except outgoing.NotReached as problem:
        raise NotSent(problem.said, is_final=problem.is_final) from problem


def _allowed(settings: Settings) -> outgoing.Allowed:
    return outgoing.Allowed("webhook_hosts", settings.webhook_hosts)


def _text(error: bytes | str) -> str:
    text = error.decode("utf-8", "replace") if isinstance(error, bytes) else error
    return _one_line(text)
