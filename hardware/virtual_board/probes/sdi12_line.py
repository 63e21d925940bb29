"""The SDI-12 data wire between a node's UART and its sensors: breaks, marks, who drives it and when.

Source: SDI-12 Support Group, SDI-12 version 1.4, §3 (electrical), §5.1 (byte frame: start bit, seven bits, even
parity, stop bit), §7 (timing): a break is at least 12 ms of spacing and wakes everybody; then at least 8.33 ms of marking; no
more than 1.66 ms between the characters of a command; after its last stop bit the recorder leaves the wire within 7.5 ms,
and the answer begins between 8.33 and 15 ms; 100 ms of marking send everybody to sleep again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from hardware.virtual_board.wiring import UartSettings

WIRE = UartSettings(1200, 7, 0, 1, is_tx_inverted=True, is_rx_inverted=True)

_BREAK_US = 12_000
_MARK_US = 8_330
_GAP_US = 1_660
_AWAKE_US = 100_000
_LONGEST_COMMAND = 16
_GARBLED = b"\x00"


@dataclass(frozen=True)
class Spoken:
    """What a sensor puts on the wire: so many µs after the command's last stop bit."""

    delay_us: int
    data: bytes


class Sdi12Sensor(Protocol):
    """A sensor as the wire knows it: it hears breaks and whole commands."""

    def broke(self, now_us: int) -> None:
        """A break ends a measurement that holds the wire."""

    def command(self, text: str, now_us: int) -> list[Spoken]:
        """The answer to a command (`0D0!`) whose last stop bit ended now, and what follows unasked."""


@dataclass(frozen=True)
class _Sent:
    start_us: int
    end_us: int
    byte: int
    settings: UartSettings

    @property
    def spacing_us(self) -> int:
        """How long the wire is at spacing from the start bit on: the zeros that lead, parity included."""
        zeros = next(
            (n for n in range(self.settings.bits) if self.byte >> n & 1), self.settings.bits
        )
        if zeros == self.settings.bits and self.settings.parity == 0:
            zeros += 1
        return (1 + zeros) * 1_000_000 // self.settings.baudrate


class Sdi12Line:
    """One wire. `enable_pin` drives the three-state buffer from the UART; the receiver always listens, to the echo too."""

    def __init__(self, *, enable_pin: int) -> None:
        self.sensors: list[Sdi12Sensor] = []
        self._enable_pin = enable_pin
        self._drive: list[tuple[int, int]] = []  # (µs, level) of the buffer's enable
        self._queue: deque[_Sent] = deque()
        self._wire: list[tuple[int, int, int]] = []  # (start, end, byte) of what sensors say
        self._echo: list[tuple[int, bytes]] = []
        self._command = ""
        self._last_us = 0
        self._mark_us = 0  # since when the wire is at marking
        self._awake_until_us = 0

    # --- PowerSwitch: every pin is reported, the enable among them ---

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if pin == self._enable_pin:
            self._drive.append((now_us, level))

    # --- SerialLine ---

    def sent(self, data: bytes, settings: UartSettings, start_us: int) -> None:
        self._catch_up(start_us)
        step_us = settings.character_us()
        for number, byte in enumerate(data):
            begin_us = start_us + number * step_us
            self._queue.append(_Sent(begin_us, begin_us + step_us, byte, settings))

    def heard(
        self, settings: UartSettings, since_us: int, until_us: int
    ) -> list[tuple[int, bytes]]:
        self._catch_up(until_us)
        due = [said for said in self._wire if said[1] <= until_us]
        self._wire = [said for said in self._wire if said[1] > until_us]
        found = [item for item in self._echo if item[0] > since_us]
        self._echo = []
        for start_us, end_us, byte in due:
            # Sensor and node at the same time on one wire: neither is understood.
            is_clear = settings == WIRE and not self._is_driven_within(start_us, end_us)
            found.append((end_us, bytes([byte]) if is_clear else _GARBLED))
        return sorted(found)

    def _catch_up(self, until_us: int) -> None:
        """What has left the UART by now reaches the sensors: until here it is known who drove the wire."""
        while self._queue and self._queue[0].end_us <= until_us:
            sent = self._queue.popleft()
            if self._is_driven_throughout(sent.start_us, sent.end_us):
                self._echo.append((sent.end_us, bytes([sent.byte])))
                self._reaches_sensors(sent)
            else:
                self._command = ""

    def _reaches_sensors(self, sent: _Sent) -> None:
        if not sent.settings.is_tx_inverted:
            # Upside down the wire rests at spacing; nobody wakes up from that.
            self._awake_until_us = 0
        elif sent.spacing_us >= _BREAK_US:
            self._mark_us = sent.start_us + sent.spacing_us
            self._awake_until_us = self._mark_us + _AWAKE_US
            self._command = ""
            # Who was about to speak listens instead.
            self._wire = [said for said in self._wire if said[0] < sent.start_us]
            for sensor in self.sensors:
                sensor.broke(sent.start_us)
        elif sent.settings == WIRE and self._is_understood(sent):
            self._command += chr(sent.byte)
            self._last_us = sent.end_us
            if self._command.endswith("!"):
                self._answer(sent.end_us)
        else:
            self._command = ""

    def _is_understood(self, sent: _Sent) -> bool:
        if not self._command:
            return (
                sent.start_us - self._mark_us >= _MARK_US and sent.start_us <= self._awake_until_us
            )
        return sent.start_us - self._last_us <= _GAP_US and len(self._command) < _LONGEST_COMMAND

    def _answer(self, now_us: int) -> None:
        command, self._command = self._command, ""
        step_us = WIRE.character_us()
        self._awake_until_us = now_us + _AWAKE_US
        for sensor in self.sensors:
            for spoken in sensor.command(command, now_us):
                start_us = now_us + spoken.delay_us
                for number, byte in enumerate(spoken.data):
                    begin_us = start_us + number * step_us
                    self._say(begin_us, begin_us + step_us, byte)
        self._wire.sort()

    def _say(self, start_us: int, end_us: int, byte: int) -> None:
        """A character on the wire; where two sensors speak at once, spacing (a zero) wins."""
        for index, (other_start, other_end, other) in enumerate(self._wire):
            if start_us < other_end and other_start < end_us:
                self._wire[index] = (
                    min(start_us, other_start),
                    max(end_us, other_end),
                    byte & other,
                )
                return
        self._wire.append((start_us, end_us, byte))

    def _is_driven_throughout(self, start_us: int, end_us: int) -> bool:
        return self._level_at(start_us) == 1 and not any(
            start_us < moment < end_us and not level for moment, level in self._drive
        )

    def _is_driven_within(self, start_us: int, end_us: int) -> bool:
        return self._level_at(start_us) == 1 or any(
            start_us < moment < end_us and level for moment, level in self._drive
        )

    def _level_at(self, moment_us: int) -> int:
        return next((level for us, level in reversed(self._drive) if us <= moment_us), 0)
