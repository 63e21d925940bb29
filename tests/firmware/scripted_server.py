"""What a scripted broker and a scripted listener have in common: a port of their own, and a thread for each connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod

_TIMEOUT_S = 45


class ScriptedServer(ABC):
    """Listens from the start on; whoever inherits says what is done with a connection, and calls `begin` when it is ready."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.connections = 0
        self._listener = socket.create_server(address)
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)

    def begin(self) -> None:
        self._accepting.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for accepted in self._sockets:
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def serve(self, accepted: socket.socket) -> None:
        """In a thread of its own, until the connection ends."""

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            accepted.settimeout(_TIMEOUT_S)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(accepted)
            self.connections += 1
            thread = threading.Thread(target=self.serve, args=(accepted,))
            self._threads.append(thread)
            thread.start()
