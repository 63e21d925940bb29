"""MicroPython's console as an ESP32 speaks it: prompt, raw REPL and raw paste, on the host's side of the machine.

The machine's own build has no raw REPL. So the reading of code happens here, and a small resident program
(`terminal_run.py`) asks for the next piece, runs it in globals that last, and says how it went. The dialogue is that of
"The MicroPython Interactive Interpreter Mode" in MicroPython's documentation, raw paste included. Left out: moving the
cursor inside a line, automatic indentation, completion.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hardware.virtual_board import errno_esp32
from hardware.virtual_board.cable.wire import CTRL_C, Hearing, Wire
from hardware.virtual_board.rom import ROM_FOLDER

_CTRL_A, _CTRL_B, _CTRL_D, _CTRL_E = b"\x01", b"\x02", b"\x04", b"\x05"
_CONTROLS = _CTRL_A + _CTRL_B + CTRL_C + _CTRL_D
_RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n"
_PASTE_WINDOW_BYTES = 128
_MOST_BYTES_AT_ONCE = 4096
_HISTORY_LINES = 8
_BACKSPACES = (0x08, 0x7F)
# What keys send behind the escape character: ECMA-48 control sequences, and the short ones of function keys.
_ESCAPE_SEQUENCE = re.compile(rb"\[[0-?]*[@-~]|O[@-~]")
_ESCAPE_BEGINNING = re.compile(rb"\[[0-?]*|O")

RESIDENT = "_resident"
"""Name of the function that runs everything."""

# Frames that an ESP32 does not have: the resident program, and built-in modules that are C code there.
_OUR_FRAMES = re.compile(
    rf'  File "(?:{ROM_FOLDER}[^"]*", line \d+, in .*|[^"]*", line \d+, in {RESIDENT})\r?\n'
)
_OS_ERROR = re.compile(r"^OSError: (?:\[Errno (\d+)\] [A-Z0-9]+|(\d+))(?=\r?$)", re.MULTILINE)
# MicroPython has names for most numbers and shows these bare.
_UNNAMED = ("ENOTDIR", "EFBIG", "ENOSPC", "ENAMETOOLONG", "ENOTEMPTY", "EISCONN", "EAI_FAIL")
_ERRNO_NAMES = {
    number: name
    for name, number in vars(errno_esp32).items()
    if name.startswith("E") and name not in _UNNAMED
}


class SoftReset(Exception):
    """Ctrl-D was pressed where nothing was typed."""


class Code(NamedTuple):
    """What the machine is to run: `kind` as `compile` takes it."""

    kind: str
    text: bytes


class Repl:
    """One console; its mode lasts through soft resets."""

    def __init__(self, wire: Wire) -> None:
        self.is_raw = False
        self._wire = wire
        self._banner = b""
        self._has_greeted = False
        self._is_answering_raw = False  # a piece from the raw REPL is running
        self._error: bytearray | None = None  # a traceback on its way
        self._history: list[bytes] = []

    # --- what the machine says ---

    def begin(self, banner: str) -> None:
        """A new machine has started."""
        self._banner = banner.encode() + b'\r\nType "help()" for more information.\r\n'
        self._has_greeted = self._is_answering_raw = False
        self._error = None

    def printed(self, data: bytes) -> None:
        """Output of what runs."""
        if self._error is None:
            self._wire.send(_cooked(data))
        else:
            self._error += data

    def failed(self) -> None:
        """What ran ended with an exception, whose traceback comes next."""
        self._wire.hear(Hearing.PROMPT)
        if self._is_answering_raw:
            self._wire.send(_CTRL_D)
        self._error = bytearray()

    def done(self) -> None:
        """What ran has ended."""
        self._wire.hear(Hearing.PROMPT)
        error, self._error = self._error, None
        if error is not None:
            self._wire.send(_cooked(_as_on_an_esp32(error)))
        elif self._is_answering_raw:
            self._wire.send(_CTRL_D)
        if self._is_answering_raw:
            self._wire.send(_CTRL_D)
        self._is_answering_raw = False

    def next_code(self) -> Code:
        """Wait for the next piece of code.

        Raises:
            SoftReset: it is to begin anew.
            Halted: the chip was stopped.
        """
        self.done()
        code = None
        while code is None:
            code = self._raw_code() if self.is_raw else self._friendly_code()
        self._wire.hear(Hearing.PROGRAM)
        return code

    # --- raw ---

    def _raw_code(self) -> Code | None:
        if not self._has_greeted:
            self._wire.send(_RAW_BANNER)
            self._has_greeted = True
        self._wire.send(b">")
        text = bytearray()
        while True:
            text += self._wire.take(_MOST_BYTES_AT_ONCE, until=_CONTROLS)
            control = bytes(text[-1:])
            if control not in _CONTROLS:
                continue
            del text[-1:]
            if control == _CTRL_A:
                if len(text) == 2 and text[:1] == _CTRL_E:
                    return self._pasted(bytes(text[1:]))
                self._wire.send(_RAW_BANNER + b">")
            elif control == _CTRL_B:
                self._switch(is_raw=False)
                return None
            elif control == _CTRL_D:
                return self._raw_complete(bytes(text))
            text.clear()

    def _raw_complete(self, text: bytes) -> Code:
        self._wire.send(b"OK")
        if not text:
            self._wire.send(b"\r\n")
            raise SoftReset
        self._is_answering_raw = True
        return Code("exec", text)

    def _pasted(self, kind: bytes) -> Code | None:
        """Raw paste: the client may send a window at a time, and gets another for every one that was read."""
        if kind != b"A":
            self._wire.send(b"R\x00")
            return None
        self._wire.send(b"R\x01" + _PASTE_WINDOW_BYTES.to_bytes(2, "little") + b"\x01")
        text = bytearray()
        left = _PASTE_WINDOW_BYTES
        while True:
            part = self._wire.take(left, until=CTRL_C + _CTRL_D)
            if part[-1:] in (CTRL_C, _CTRL_D):
                break
            text += part
            left -= len(part)
            if not left:
                self._wire.send(b"\x01")
                left = _PASTE_WINDOW_BYTES
        self._wire.send(_CTRL_D)
        if part.endswith(CTRL_C):
            self._wire.send(_CTRL_D + b"KeyboardInterrupt: \r\n" + _CTRL_D)
            return None
        self._is_answering_raw = True
        return Code("exec", bytes(text + part[:-1]))

    def _switch(self, *, is_raw: bool) -> None:
        self._wire.send(b"\r\n")
        self.is_raw, self._has_greeted = is_raw, False

    # --- friendly ---

    def _friendly_code(self) -> Code | None:
        if not self._has_greeted:
            self._wire.send(self._banner)
            self._has_greeted = True
        line = self._line(b">>> ")
        if line == _CTRL_E:
            return self._paste_mode()
        text = line
        while text is not None and wants_more(text.decode(errors="replace")):
            line = self._line(b"... ")
            text = None if line is None else text + b"\n" + line
        return Code("single", text) if text is not None and text.strip() else None

    def _line(self, prompt: bytes) -> bytes | None:
        """One line; None when it was given up for Ctrl-C or another mode; Ctrl-E for itself."""
        self._wire.send(prompt)
        line = bytearray()
        place = len(self._history)  # in the history; its length is "not in it"
        escape: bytes | None = None
        while True:
            byte = self._wire.take(1)
            if escape is not None and byte >= b" ":
                escape += byte
                if _ESCAPE_SEQUENCE.fullmatch(escape):
                    place, escape = self._recalled(line, place, escape), None
                elif not _ESCAPE_BEGINNING.fullmatch(escape):
                    escape = None
                continue
            escape = None
            if byte in (b"\r", b"\n"):
                self._wire.send(b"\r\n")
                self._remember(bytes(line))
                return bytes(line)
            if byte == CTRL_C:
                self._wire.send(b"\r\n")
                return None
            if not line and byte in (_CTRL_A, _CTRL_B):
                self._switch(is_raw=byte == _CTRL_A)
                return None
            if not line and byte == _CTRL_D:
                self._wire.send(b"\r\n")
                raise SoftReset
            if not line and byte == _CTRL_E and prompt == b">>> ":
                return _CTRL_E
            if byte == b"\x1b":
                escape = b""
            elif byte[0] in _BACKSPACES:
                if line:
                    del line[-1:]
                    self._wire.send(b"\b \b")
            elif byte[0] >= 0x20 or byte == b"\t":
                line += byte
                self._wire.send(byte)

    def _recalled(self, line: bytearray, place: int, escape: bytes) -> int:
        """Up and down put an earlier line in place of this one, other keys do nothing. Returns the new place."""
        step = {b"[A": -1, b"[B": 1}.get(escape, 0)
        wanted = place + step
        if not step or not 0 <= wanted <= len(self._history):
            return place
        self._wire.send(b"\b \b" * len(line))
        line[:] = self._history[wanted] if wanted < len(self._history) else b""
        self._wire.send(bytes(line))
        return wanted

    def _remember(self, line: bytes) -> None:
        if line.strip() and line not in self._history[-1:]:
            self._history = [*self._history, line][-_HISTORY_LINES:]

    def _paste_mode(self) -> Code | None:
        self._wire.send(b"\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")
        text = bytearray()
        while True:
            byte = self._wire.take(1)
            if byte in (CTRL_C, _CTRL_D):
                self._wire.send(b"\r\n")
                return Code("exec", bytes(text)) if byte == _CTRL_D else None
            text += b"\n" if byte == b"\r" else byte
            self._wire.send(b"\r\n=== " if byte == b"\r" else byte)


_OPENING, _CLOSING = "([{", ")]}"
_TOKEN = re.compile(
    r"""(?P<string>\'{3}|"{3}|'|")|(?P<comment>\#[^\n]*)|(?P<bracket>[()\[\]{}])|(?P<other>.)""",
    re.DOTALL,
)
_COMPOUND = re.compile(r"(if|while|for|try|with|def|class|async)\b|@")


def wants_more(text: str) -> bool:
    """Whether what was typed is not complete: an open bracket or string, a line that goes on, or a block.

    A block ends with an empty line.
    """
    if text.endswith("\\"):
        return True
    depth, at = 0, 0
    while (found := _TOKEN.match(text, at)) is not None:
        at = found.end()
        if found["string"]:
            end = _end_of_string(text, at, found["string"])
            if end is None:
                return len(found["string"]) == 3
            at = end
        elif found["bracket"]:
            depth += 1 if found["bracket"] in _OPENING else -1
    if depth > 0:
        return True
    return _COMPOUND.match(text.lstrip()) is not None and not text.endswith("\n")


def _end_of_string(text: str, at: int, quote: str) -> int | None:
    """Behind the closing quote; None when there is none (a short string ends with its line)."""
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith(quote, at):
            return at + len(quote)
        elif len(quote) == 1 and text[at] == "\n":
            return None
        else:
            at += 1
    return None


def _cooked(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def _as_on_an_esp32(traceback: bytearray) -> bytes:
    """Without our own frames, and with the ESP32's names for error numbers (the machine prints WASI's)."""

    def named(match: re.Match[str]) -> str:
        number = match[1] or match[2]
        name = _ERRNO_NAMES.get(int(number))
        return f"OSError: [Errno {number}] {name}" if name else f"OSError: {number}"

    text = traceback.decode(errors="replace")
    return _OS_ERROR.sub(named, _OUR_FRAMES.sub("", text)).encode()
