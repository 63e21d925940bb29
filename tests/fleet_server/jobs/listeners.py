"""A mail server and a web server on this machine, real enough for what we send them."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

T = TypeVar("T")


@dataclass
class MailServer:
    """`refuses`: the answer to the next mails' content, instead of taking them."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    refuses: str | None = None


@contextmanager
def running_mail_server() -> Iterator[MailServer]:
    """SMTP (RFC 5321) as far as it takes mails."""
    box = MailServer()

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 here")
            for line in self.rfile:
                word = line.decode().strip()
                command = word[:4].upper()
                if command == "DATA":
                    self._take()
                elif command == "QUIT":
                    self._say("221 bye")
                    return
                else:
                    if command == "RCPT":
                        box.recipients.append(word.partition("<")[2].partition(">")[0])
                    self._say("250 fine")

        def _take(self) -> None:
            self._say("354 go on")
            lines = []
            for line in self.rfile:
                if line == b".\r\n":
                    break
                lines.append(line.removeprefix(b"."))
            if box.refuses is not None:
                self._say(box.refuses)
                return
            mail = message_from_bytes(b"".join(lines), policy=policy.default)
            assert isinstance(mail, EmailMessage)
            box.mails.append(mail)
            self._say("250 taken")

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        box.port = server.server_address[1]
        yield from _serving(server, box)


@dataclass
class WebServer:
    """`answers` with this status; what came is (path, headers, body)."""

    port: int = 0
    status: int = 204
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def running_web_server() -> Iterator[WebServer]:
    box = WebServer()

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            box.came.append((self.path, dict(self.headers), body))
            self.send_response(box.status)
            if box.status == 302:
                self.send_header("Location", f"http://127.0.0.1:{box.port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        box.port = server.server_address[1]
        yield from _serving(server, box)


def _serving(server: socketserver.BaseServer, box: T) -> Iterator[T]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        thread.join()
