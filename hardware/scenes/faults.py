"""The faults that a scene or a test can put on a probe, by the names that scene files use."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Fault(StrEnum):
    """What is wrong with a probe or its cable; `strength` below is the fault window's."""

    DISCONNECTED = "disconnected"  # cable off: no presence, no answer, open circuit
    SHORT = "short"  # the two wires touch
    STUCK = "stuck"  # goes on telling the value that it had when the fault began
    DRIFT = "drift"  # adds `strength` published units per day since the fault began
    NOISE = "noise"  # adds Gaussian noise of `strength` published units; on a bus, stray bytes
    FOULING = "fouling"  # loses `strength` (a ratio) of the oxygen per day: a growing film breathes
    BAD_CRC = "bad_crc"  # one bit flips on the way
    HALF_FRAME = "half_frame"  # the answer breaks off in the middle
    SLOW = "slow"  # answers `strength` seconds late
    POWER_ON = "power_on"  # a weak supply restarts the probe during each conversion
    UNEVEN = "uneven"  # the two polarities disagree: a corroded contact
    INVALID = (
        "invalid"  # says itself that it has no valid value: 0xFFFF, an error code, no data, 3.5 mA
    )
    BUSY = "busy"  # says for ever that it is not ready yet
    BUS_HELD = "bus_held"  # keeps the bus low, so that nobody on it can speak
    NO_WIPER = "no_wiper"  # does not obey when it is told to wipe
    MALFUNCTION = "malfunction"  # the probe itself says that it cannot measure
    NO_ECHO = "no_echo"  # foam or reeds swallow the sound
    BOUNCE = "bounce"  # a contact that opens and closes while it is looked at


FAULTS_OF_DRIVER: Mapping[str, frozenset[Fault]] = MappingProxyType(
    {
        "watermark": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.SHORT,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.UNEVEN,
            }
        ),
        "ds18b20": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.SHORT,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.BAD_CRC,
                Fault.HALF_FRAME,
                Fault.POWER_ON,
            }
        ),
        "modbus": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.FOULING,
                Fault.BAD_CRC,
                Fault.HALF_FRAME,
                Fault.SLOW,
                Fault.INVALID,
                Fault.NO_WIPER,
            }
        ),
        "ezo": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.HALF_FRAME,
                Fault.INVALID,
                Fault.BUSY,
                Fault.BUS_HELD,
            }
        ),
        "current_loop": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.SHORT,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.INVALID,
                Fault.BUSY,
                Fault.BUS_HELD,
            }
        ),
        "sdi12": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.BAD_CRC,
                Fault.HALF_FRAME,
                Fault.SLOW,
                Fault.MALFUNCTION,
            }
        ),
        "a02yyuw": frozenset(
            {
                Fault.DISCONNECTED,
                Fault.STUCK,
                Fault.DRIFT,
                Fault.NOISE,
                Fault.BAD_CRC,
                Fault.HALF_FRAME,
                Fault.NO_ECHO,
            }
        ),
        "analogue": frozenset(
            {Fault.DISCONNECTED, Fault.SHORT, Fault.STUCK, Fault.DRIFT, Fault.NOISE}
        ),
        "contact": frozenset({Fault.DISCONNECTED, Fault.SHORT, Fault.STUCK, Fault.BOUNCE}),
        "battery": frozenset({Fault.DISCONNECTED, Fault.STUCK, Fault.DRIFT, Fault.NOISE}),
    }
)
