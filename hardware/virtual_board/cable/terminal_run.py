"""One run of the machine with somebody at its console: boot.py, main.py, then the REPL until something ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.virtual_board.board import BOOT_US, Board, Run
from hardware.virtual_board.cable.repl import RESIDENT, Code, Repl, SoftReset
from hardware.virtual_board.cable.wire import Hearing, Wire
from hardware.virtual_board.peripherals import Reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware.virtual_board.clock import WallClock
    from hardware.virtual_board.flash import Flash

_MACHINE = "Generic ESP32 module with ESP32"
# The resident program below (2 KB), and the source of the piece that it runs; an ESP32 has the first in its ROM and reads
# the second as it compiles.
_HEAP_BYTES = 6 * 1024

_PROGRAM = """
def {resident}(scope, files, call, address_of, print_exception, version):
    for name in ("sys", "_board", {resident!r}):
        scope.pop(name)
    call("repl_begin", version)
    try:
        for name in files:
            try:
                execfile(name, scope)
            except SystemExit:
                call("reset", "soft")
            except BaseException as error:
                call("repl_failed")
                print_exception(error)
                break
    except KeyboardInterrupt:
        pass
    error = None
    while True:
        try:
            try:
                kind, size = call("repl_next").split()
                source = bytes(int(size))
                call("repl_take", str(address_of(source)))
                exec(compile(source, "<stdin>", kind), scope)
            except SystemExit:
                call("reset", "soft")
            except BaseException as error:
                call("repl_failed")
                print_exception(error)
            source = error = None
        except KeyboardInterrupt:
            pass

import _board, sys
{resident}(globals(), {files!r}, _board.call, _board.address_of, sys.print_exception, sys.version)
"""


class TerminalRun(Run):
    """Between two resets. Ends with what ends a run of `Board`, and with a stop of the chip ("halted")."""

    extra_heap_bytes = _HEAP_BYTES

    def __init__(
        self,
        board: Board,
        *,
        wire: Wire,
        repl: Repl,
        clock: WallClock,
        flash: Flash,
        is_soft: bool,
    ) -> None:
        """`is_soft`: the processor was not reset, only MicroPython."""
        super().__init__(board, boot_us=0 if is_soft else BOOT_US, clock=clock, flash=flash)
        self._wire = wire
        self._wall_clock = clock
        self._repl = repl
        self._code = Code("exec", b"")
        self.overseer = self._oversee

    def program(self) -> str:
        """Boot files and REPL. What is asked for in the raw REPL after a soft reset is boot.py alone."""
        files = [name for name in self.boot_files() if name == "boot.py" or not self._repl.is_raw]
        return _PROGRAM.format(resident=RESIDENT, files=files)

    def operations(self) -> dict[str, Callable[[str], str | int | None]]:
        """Host calls of the resident program."""
        return {
            "repl_begin": self._begin,
            "repl_failed": self._failed,
            "repl_next": self._next,
            "repl_take": self._take,
        }

    def console(self, data: bytes) -> None:
        """Print. A program that does nothing else is interrupted here."""
        super().console(data)
        self._oversee()
        self._repl.printed(data)

    def typed(self, size: int) -> bytes:
        """What comes over the wire while a program runs."""
        return self._wire.take(size)

    def _oversee(self) -> None:
        self._wall_clock.check_watchdog()
        if self._wire.is_interrupted() and self.vm is not None:
            self.vm.interrupt()

    def _begin(self, version: str) -> None:
        _language, _, micropython = version.partition("; ")
        self._repl.begin(f"{micropython}; {_MACHINE}")
        # Not before: MicroPython forgets what was pending when it starts.
        self._wire.hear(Hearing.PROGRAM)

    def _failed(self, _payload: str) -> None:
        self._repl.failed()
        self._forget_interrupt()

    def _next(self, _payload: str) -> str:
        self._forget_interrupt()
        try:
            self._code = self._repl.next_code()
        except SoftReset:
            raise Reset(soft=True) from None
        return f"{self._code.kind} {len(self._code.text)}"

    def _take(self, address: str) -> None:
        assert self.vm is not None  # noqa: S101 - it is calling
        self.vm.memory(int(address), len(self._code.text))[:] = self._code.text

    def _forget_interrupt(self) -> None:
        if self.vm is not None:
            self.vm.forget_interrupt()
