"""Making a node nobody again: identity, configuration and readings off its board. The firmware stays."""

from __future__ import annotations

from provisioning.board_reading import BoardReading, read_board
from provisioning.boards import BenchBoard
from provisioning.errors import BenchError

# What the bench and the firmware keep in NVS, the node id first: from then on the board is nobody.
NAMES = {
    "id": ("node_id", "key", "next_key", "cert", "ca0", "ca1", "label"),
    "cfg": ("link", "node", "des"),
    "cmd": ("rec",),
    "slot": ("rec0", "rec1"),
    "upd": ("job", "image", "image_n"),
    "boot": ("unmounted",),
}
_WIPE = """
import machine, os
from esp32 import NVS
for namespace, names in {names!r}:
    space = NVS(namespace)
    for name in names:
        try:
            space.erase_key(name)
        except OSError:
            pass
    space.commit()
def remove(folder):
    for name, kind, *_ in os.ilistdir(folder):
        path = folder + "/" + name
        if kind & 0x4000:
            remove(path)
        else:
            os.remove(path)
    os.rmdir(folder)
for name in ("spool", "tuf"):
    if name in os.listdir("/"):
        remove("/" + name)
machine.RTC().memory(b"")
"""


def check_may_wipe(reading: BoardReading, *, node_id: str | None, drops_readings: bool) -> None:
    """Before anything is lost: is it the board that is meant, and does it hold nothing that only it has?

    Raises:
        BenchError: it is another node, or it holds packs without a receipt.
    """
    if reading.node_id is not None and node_id is None:
        raise BenchError(
            f"The board is {reading.label or 'a node'} ({reading.node_id}); say that you mean it with --node-id"
            f" {reading.node_id}."
        )
    if reading.node_id is not None and reading.node_id != node_id:
        raise BenchError(
            f"The board is {reading.label or 'another node'} ({reading.node_id}), not {node_id}; nothing was wiped."
        )
    waiting = reading.spool.waiting if reading.spool else 0
    if waiting and not drops_readings:
        raise BenchError(
            f"The board holds {waiting} packs that the fleet has not confirmed; let it talk once more, or give them up"
            " with --drop-readings."
        )


def wipe_board(board: BenchBoard) -> None:
    """Wipe, and make sure of it. Safe to repeat.

    Raises:
        BenchError: the board failed, or has kept something.
    """
    board.exec(_WIPE.format(names=tuple(NAMES.items())))
    left = read_board(board)
    if left.node_id or left.certificate_serial or left.spool:
        raise BenchError("The board has kept a part of what it was; wipe it with --everything.")
