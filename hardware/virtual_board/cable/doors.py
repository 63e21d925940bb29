"""The doors to a served board: RFC 2217, bare TCP and, on Linux, a pseudo-terminal. One client at a time, at any of them.

While somebody is there the other doors are shut: a TCP port that refuses connections and a terminal that is locked are
what programs tell people about in words they understand ("may be in use by another program").

RFC 2217 (Telnet Com Port Control) carries DTR and RTS and so the whole auto-reset circuit; its server side is pyserial's.
The other two have no lines; `wire.py` says what stands in for them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from serial import rfc2217

if TYPE_CHECKING:
    from hardware.virtual_board.cable.wire import Wire

_HOST = "127.0.0.1"
_PIECE_BYTES = 4096
# How often it is looked whether somebody has opened the terminal: its other end cannot tell.
_LOOK_EVERY_S = 0.02
# A client that takes nothing for so long is not there any more.
_SEND_PATIENCE_S = 5.0


class Doors:
    """All doors of one board, served by one thread."""

    def __init__(self, wire: Wire, *, port: int = 0, tcp_port: int = 0) -> None:
        """Opens them; 0 takes any free port. Raises OSError when a port is taken."""
        self._wire = wire
        self._is_closing = threading.Event()
        self.failure: OSError | None = None
        with contextlib.ExitStack() as opened:
            self._rfc2217 = opened.enter_context(_TcpDoor(port, _Rfc2217Client))
            self._tcp = opened.enter_context(_TcpDoor(tcp_port, _TcpClient))
            self._terminal = opened.enter_context(_Terminal())
            self._opened = opened.pop_all()
        self._thread = threading.Thread(target=self._serve, name="doors", daemon=True)

    @property
    def rfc2217_url(self) -> str:
        return f"rfc2217://{_HOST}:{self._rfc2217.port}"

    @property
    def tcp_url(self) -> str:
        return f"socket://{_HOST}:{self._tcp.port}"

    @property
    def pty_path(self) -> str:
        return self._terminal.path

    def start(self) -> None:
        """Let people in."""
        for door in (self._rfc2217, self._tcp):
            door.open()
        self._thread.start()

    def close(self) -> None:
        """Everybody out, all doors gone."""
        self._is_closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._opened.close()

    def _serve(self) -> None:
        try:
            while not self._is_closing.is_set():
                client = self._wait_for_client()
                if client is not None:
                    self._be_with(client)
        except OSError as failure:
            # Somebody else took a port while it did not listen, or there are too many open files.
            self.failure = failure

    def _wait_for_client(self) -> _Visitor | None:
        doors = (self._rfc2217, self._tcp)
        ready, _, _ = select.select([door.listener for door in doors], [], [], _LOOK_EVERY_S)
        for door in doors:
            if door.listener in ready:
                return door.admit(self._wire)
        return self._terminal.visitor()

    def _be_with(self, client: _Visitor) -> None:
        """Until they leave."""
        for door in (self._rfc2217, self._tcp):
            door.shut()
        with self._terminal.locked_against_others(client):
            self._wire.attach(client)
            client.greet()
            while not self._is_closing.is_set() and (data := client.receive()) is not None:
                if data:
                    self._wire.received(data)
            self._wire.detach()
            client.leave()
        for door in (self._rfc2217, self._tcp):
            door.open()


class _TcpDoor:
    """One port, bound for good, that listens only while nobody is there.

    A second socket holds the port while the first does not exist: it is bound and never listens.
    """

    def __init__(self, port: int, kind: Callable[[socket.socket, Wire], _Visitor]) -> None:
        self._kind = kind
        self._holder = _bound(port)
        self.port: int = self._holder.getsockname()[1]
        self.listener = _bound(self.port)

    def __enter__(self) -> _TcpDoor:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self._holder.close()

    def open(self) -> None:
        if self.listener.fileno() < 0:
            self.listener = _bound(self.port)
        self.listener.setblocking(False)
        self.listener.listen(1)

    def shut(self) -> None:
        # A process that is just being forked has the listener too, and would keep it alive for a moment.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RD)
        self.listener.close()

    def admit(self, wire: Wire) -> _Visitor | None:
        """Whoever knocks, if they are still there."""
        try:
            connection, _ = self.listener.accept()
        except (BlockingIOError, ConnectionError):
            return None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._kind(connection, wire)


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((_HOST, port))
    except OSError:
        made.close()
        raise
    return made


class _Visitor(ABC):
    """Somebody at a door; `wire.Client` with what the doors' own thread needs."""

    has_lines = False

    def greet(self) -> None:  # noqa: B027 - most have nothing to say
        """Say what has to be said first."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Give them what the board says; whoever takes nothing for seconds is gone."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """What has come within a moment, maybe nothing; None when they have left."""

    @abstractmethod
    def leave(self) -> None:
        """Close their door behind them."""


class _TcpClient(_Visitor):
    """Bytes as they are."""

    def __init__(self, connection: socket.socket, _wire: Wire) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._is_gone = False
        connection.settimeout(_SEND_PATIENCE_S)

    def send(self, data: bytes) -> None:
        with self._sending:
            if not self._is_gone:
                try:
                    self._connection.sendall(data)
                except OSError:
                    self._is_gone = True

    def receive(self) -> bytes | None:
        if self._is_gone:
            return None
        if not select.select([self._connection], [], [], _LOOK_EVERY_S)[0]:
            return b""
        # pyserial's client leaves Nagle's algorithm on: without an acknowledgement at once, every answer costs 40 ms.
        # The option has to be set again after it has worked.
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        try:
            return self._connection.recv(_PIECE_BYTES) or None
        except OSError:
            return None

    def leave(self) -> None:
        self._connection.close()


class _Rfc2217Client(_TcpClient):
    """Telnet with Com Port Control round the bytes."""

    has_lines = True

    def __init__(self, connection: socket.socket, wire: Wire) -> None:
        super().__init__(connection, wire)
        self._port = _SerialPort(wire)

    def greet(self) -> None:
        self._telnet = rfc2217.PortManager(self._port, self)  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """What Telnet itself has to say (called by pyserial)."""
        super().send(data)

    def send(self, data: bytes) -> None:
        super().send(data.replace(rfc2217.IAC, rfc2217.IAC_DOUBLED))

    def receive(self) -> bytes | None:
        data = super().receive()
        return data and b"".join(self._telnet.filter(data))  # type: ignore[no-untyped-call]


class _SerialPort:
    """What pyserial's RFC 2217 server wants to have behind it: settings that do not matter here, and two lines that do."""

    cts = dsr = cd = True
    ri = False

    def __init__(self, wire: Wire) -> None:
        self.baudrate, self.bytesize, self.parity, self.stopbits = 115200, 8, "N", 1
        self.xonxoff = self.rtscts = self.break_condition = False
        self._wire = wire
        self._dtr = self._rts = False

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, is_asserted: bool) -> None:
        self._dtr = is_asserted
        self._wire.set_lines(dtr=self._dtr, rts=self._rts)

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, is_asserted: bool) -> None:
        self._rts = is_asserted
        self._wire.set_lines(dtr=self._dtr, rts=self._rts)

    def reset_input_buffer(self) -> None:
        """Nothing is kept here."""

    def reset_output_buffer(self) -> None:
        """Nothing is kept here."""


class _Terminal:
    """A pseudo-terminal. That somebody has it open is seen from our end by its not being hung up."""

    def __init__(self) -> None:
        self._ours, theirs = os.openpty()
        self.path = os.ttyname(theirs)
        tty.setraw(theirs)
        os.close(theirs)
        os.set_blocking(self._ours, False)

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)

    def visitor(self) -> _Visitor | None:
        """Whoever has opened it."""
        return None if _is_hung_up(self._ours) else _TerminalClient(self._ours)

    @contextlib.contextmanager
    def locked_against_others(self, client: _Visitor) -> Iterator[None]:
        """Programs that open ports exclusively are refused; what others write is thrown away afterwards."""
        if isinstance(client, _TerminalClient):
            yield
            return
        lock = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)
            while _read(self._ours):
                pass


class _TerminalClient(_Visitor):
    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._patience_s = _SEND_PATIENCE_S

    def send(self, data: bytes) -> None:
        poll = select.poll()
        poll.register(self._terminal, select.POLLOUT)
        while data and not _is_hung_up(self._terminal):
            is_taken = bool(poll.poll(self._patience_s * 1000))
            # Who has not read for long is not waited for a second time; nobody can be thrown out of a terminal.
            self._patience_s = _SEND_PATIENCE_S if is_taken else 0
            if not is_taken:
                return
            try:
                data = data[os.write(self._terminal, data) :]
            except BlockingIOError:
                continue
            except OSError:
                return

    def receive(self) -> bytes | None:
        poll = select.poll()
        poll.register(self._terminal, select.POLLIN)
        if not poll.poll(_LOOK_EVERY_S * 1000):
            return b""
        return _read(self._terminal) or (None if _is_hung_up(self._terminal) else b"")

    def leave(self) -> None:
        """It stays, for the next one."""


def _is_hung_up(terminal: int) -> bool:
    poll = select.poll()
    poll.register(terminal, 0)
    return bool(poll.poll(0))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, _PIECE_BYTES)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EIO):
            return b""
        raise
