"""TLS of the nodes' listener: whoever says nothing holds up nobody, and new certificates are shown without a restart."""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from typing import Any

import structlog
from cheroot import wsgi
from cheroot.server import HTTPConnection
from cheroot.ssl.builtin import BuiltinSSLAdapter

from fleet_server.services.authority import AuthorityFiles
from fleet_server.services.fresh_files import stamp_of

log = structlog.get_logger(__name__)

NODE_LISTENER = "node-listener"
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for. Here, and at no broker."""


class NodeTls(BuiltinSSLAdapter):
    """A bench comes without a certificate, a node with its own, which may have run out."""

    def __init__(self, files: AuthorityFiles) -> None:
        self._files = files
        self._paths = (files.certificate(NODE_LISTENER), files.key(NODE_LISTENER), files.chain)
        self._seen = stamp_of(*self._paths)
        super().__init__(str(self._paths[0]), str(self._paths[1]))
        self.context = self._made()

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """Nothing is read here: the handshake goes on when the client has said something (`NodeServer`)."""
        self._take_changes()
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {}

    def _take_changes(self) -> None:
        """Show the listener's certificate as it is now; one that is just being replaced is taken the next time."""
        stamp = stamp_of(*self._paths)
        if stamp == self._seen:
            return
        self._seen = stamp  # when the rest comes, that is another one
        try:
            self.context = self._made()
        except OSError as problem:
            log.warning("certificate_not_taken", pair=NODE_LISTENER, reason=str(problem))
            return
        log.info("certificate_taken", pair=NODE_LISTENER)

    def _made(self) -> ssl.SSLContext:
        certificate, key, chain = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(chain)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= _NO_CHECK_TIME
        # No node takes a session up again: tickets for it would cost each up to 2 KB of air.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context


class NodeServer(wsgi.Server):
    """Shakes hands with many at once, in the thread that accepts, without waiting for any.

    cheroot would wait in that thread until one client's handshake is over: of those that only connect, each stops everybody for ten
    seconds. Who is not through by `timeout` is closed by cheroot, as a connection that nobody uses.
    """

    def process_conn(self, conn: HTTPConnection) -> None:
        """Hand a connection to a worker when there is a request to read; until then it waits where silent ones wait."""
        if conn.ssl_env or self._shake_hands(conn):
            super().process_conn(conn)

    def _shake_hands(self, conn: HTTPConnection) -> bool:
        """Go on as far as possible; True when the client has said something after it."""
        connection: ssl.SSLSocket = conn.socket
        connection.setblocking(False)
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._wait(conn, selectors.EVENT_READ)
            return False
        except ssl.SSLWantWriteError:
            self._wait(conn, selectors.EVENT_WRITE)
            return False
        except OSError:  # it has gone, or speaks no TLS, or shows what is none of ours
            conn.close()
            return False
        connection.settimeout(self.timeout)
        conn.ssl_env = self.ssl_adapter.get_environ(connection)
        if connection.pending():
            return True
        conn.last_used = None
        self._wait(conn, selectors.EVENT_READ)
        return False

    def _wait(self, conn: HTTPConnection, event: int) -> None:
        # What was said on the way gives nobody more time.
        conn.last_used = conn.last_used or time.time()
        connections = self._connections  # type: ignore[attr-defined] # not in cheroot's stubs
        connections._selector.register(conn.socket.fileno(), event, data=conn)
