"""A board put on its cable: the chip and its doors in threads of their own, from `with` to the end of it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hardware.virtual_board import vm_module
from hardware.virtual_board.cable.doors import Doors
from hardware.virtual_board.cable.served_board import ServedBoard
from hardware.virtual_board.cable.wire import Wire

if TYPE_CHECKING:
    from hardware.virtual_board.board import Board
    from hardware.virtual_board.cable.chips import Chip


class Serving:
    """`doors` say where to connect. The board boots at once, and loses its supply at the end."""

    def __init__(self, board: Board, chip: Chip, *, port: int = 0, tcp_port: int = 0) -> None:
        """Opens flash and ports (0: any free one), makes the machine ready.

        Raises:
            OSError: somebody else has the board or a port.
            VmUnavailable: this computer cannot run the machine.
        """
        vm_module.machine_module()
        self._wire = Wire()
        self.doors = Doors(self._wire, port=port, tcp_port=tcp_port)
        try:
            self._chip = ServedBoard(board, chip, self._wire)
        except BaseException:
            self.doors.close()
            raise
        self._failure: BaseException | None = None
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chip")

    def __enter__(self) -> Self:
        self._thread.start()
        self.doors.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._wire.switch_off()
        self._thread.join()
        self.doors.close()

    def wait(self, timeout_s: float) -> None:
        """Up to so long. Raises what chip or doors failed with."""
        self._has_ended.wait(timeout_s)
        failure = self._failure or self.doors.failure
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            self._chip.run()
        except BaseException as failure:  # noqa: BLE001 - told to whoever waits
            self._failure = failure
        finally:
            self._has_ended.set()
