"""What DTR and RTS do to the chip: esptool's own sequences, at the pace of a cable and at that of RFC 2217."""

from __future__ import annotations

import pytest

from hardware.virtual_board.cable.reset_circuit import RISE_S, ResetCircuit

# (DTR, RTS) and how long it stays so in seconds; `step` is what setting one line takes the client.
CLASSIC = "{step}: 00 / {step}: 01 / 0.1: 01 / {step}: 11 / {step}: 10 / 0.05: 10 / {step}: 00"
HARD = "{step}: 01 / 0.1: 01 / {step}: 00"
OPENED = "{step}: 10 / {step}: 11"
CLOSED = "{step}: 10 / {step}: 00"


def _start_after(*sequences: str, step: float) -> bool | None:
    """Whether the chip starts into its loader; None when it goes on running."""
    circuit = ResetCircuit()
    now_s = 0.0
    for sequence in " / ".join(sequences).format(step=step).split(" / "):
        duration_s, lines = sequence.split(": ")
        circuit.set_lines(dtr=lines[0] == "1", rts=lines[1] == "1", now_s=now_s)
        now_s += float(duration_s)
    wait_s = circuit.starts_in_s(now_s)
    return None if wait_s is None else circuit.start()


@pytest.mark.parametrize("step", [0.0, 0.05, 0.1])
@pytest.mark.parametrize(
    ("sequences", "is_download"),
    [
        ((CLASSIC,), True),
        ((HARD,), False),
        ((OPENED, CLASSIC), True),
        ((OPENED, HARD), False),
        ((CLASSIC, HARD), False),
        ((HARD, CLASSIC), True),
        ((OPENED, CLOSED), None),
    ],
)
def test_esptools_sequences_do_what_they_are_for(
    sequences: tuple[str, ...], is_download: bool | None, step: float
) -> None:
    assert _start_after(*sequences, step=step) is is_download


def test_a_held_chip_starts_only_when_en_has_risen() -> None:
    circuit = ResetCircuit()
    circuit.set_lines(dtr=False, rts=True, now_s=1)
    assert circuit.is_held
    assert circuit.starts_in_s(100) is None

    circuit.set_lines(dtr=False, rts=False, now_s=100)

    assert circuit.starts_in_s(100) == RISE_S
    assert circuit.starts_in_s(100 + RISE_S) == 0
    circuit.start()
    assert not circuit.is_held
