"""A chip made ready for our firmware: known for what it is, and with MicroPython on it."""

from __future__ import annotations

from pathlib import Path

from provisioning import esptool_process
from provisioning.boards import VIRTUAL
from provisioning.enrolment import read_node_id
from provisioning.errors import BenchError
from provisioning.esptool_process import Chip
from provisioning.serial_board import NoMicroPython, SerialBoard


def prepare_chip(address: str, image: Path | None) -> Chip | None:
    """Tell the chip, and write MicroPython when an image is given; None for a virtual board in its folder.

    MicroPython's images reach over the place of the identity. So they go to no board that is a node.

    Raises:
        BenchError: no chip answers, it is another than the firmware is for, it is a node that an image would make
            nobody, or it has not kept the image.
    """
    if address.startswith(VIRTUAL):
        return None
    if image is None:
        return esptool_process.identify_chip(address)
    _refuse_node(address)
    return esptool_process.write_image(address, image)


def _refuse_node(address: str) -> None:
    try:
        with SerialBoard(address) as board:
            node_id = read_node_id(board)
    except NoMicroPython:
        return
    if node_id is not None:
        raise BenchError(
            f"The board is node {node_id}, and MicroPython written anew would wipe its identity; leave --image out, or"
            f" wipe it first with provision node wipe --node-id {node_id}."
        )
