"""What the node's `machine`, `esp32` and `onewire` modules reach: pins, buses, RTC, watchdog, ends of a run.

Every method named in `operations` is one host call of the guest: a text payload in, a text or number out,
OSError with the node's numbers for what the node would see as an error.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from hardware.virtual_board import errno_esp32 as errno
from hardware.virtual_board.flash import PARTITIONS
from hardware.virtual_board.wiring import HearsLine, UartSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware.virtual_board.clock import BoardClock
    from hardware.virtual_board.nvs import Nvs
    from hardware.virtual_board.vm import Vm
    from hardware.virtual_board.wiring import I2cDevice, Wiring

RTC_MEMORY_BYTES = 2048
_US_PER_DAY = 86_400_000_000
_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

# Largest input per attenuation, µV (ESP32 data sheet 4.1.2; calibrated readings end there).
_ADC_FULL_SCALE_UV = {0: 950_000, 1: 1_250_000, 2: 1_750_000, 3: 3_100_000}
# Below this the calibrated reading of an ESP32 is 0 (node.md, traps of the platform).
_ADC_FLOOR_UV = 100_000
_ADC_US = 40
_UARTS = range(3)
# What stays awake in deep sleep (ESP32 data sheet, RTC_GPIO).
_RTC_PINS = frozenset((0, 2, 4, 12, 13, 14, 15, 25, 26, 27, 32, 33, 34, 35, 36, 37, 38, 39))
_I2C_BUSES = range(2)
_I2C_CLOCKS_PER_BYTE = 9  # eight bits and the acknowledgement
_UART_INV_RX, _UART_INV_TX = 4, 32
_UART_LOOK_US = 20
# How long a blocking read sleeps between two looks at a line that may speak unasked.
_LINE_STEP_US = 500
_ONE_WIRE_RESET_US = 960
_ONE_WIRE_BYTE_US = 560


class DeepSleep(Exception):
    """The node asked for deep sleep."""

    def __init__(self, duration_us: int | None) -> None:
        super().__init__(f"deep sleep for {duration_us} µs")
        self.duration_us = duration_us


class Reset(Exception):
    """The node asked for a reset; `soft` keeps peripherals and RTC."""

    def __init__(self, *, soft: bool) -> None:
        super().__init__("soft reset" if soft else "reset")
        self.soft = soft


@dataclass
class _Uart:
    settings: UartSettings
    arriving: list[tuple[int, int]]  # (arrival in µs, byte)
    sent_us: int
    heard_us: int  # until when its line has been listened to


class Peripherals:
    """One wake's view of the hardware around the processor."""

    def __init__(
        self,
        *,
        clock: BoardClock,
        wiring: Wiring,
        nvs: Nvs,
        rtc_memory: bytearray,
        reset_cause: int,
        wake_reason: int,
        unique_id: bytes,
    ) -> None:
        self.rtc_memory = rtc_memory
        self.heap_low: int | None = None
        self.wake_on: tuple[int, int] | None = None  # pin, level
        self._clock = clock
        self._wiring = wiring
        self._nvs = nvs
        self._reset_cause = reset_cause
        self._wake_reason = wake_reason
        self._unique_id = unique_id
        self._vm: Vm | None = None
        self._levels: dict[int, int | None] = {}
        self._uarts: dict[int, _Uart] = {}
        self._i2c_hz: dict[int, tuple[int, int]] = {}

    def attach(self, vm: Vm) -> None:
        """The machine whose memory addresses in payloads belong to."""
        self._vm = vm

    def operations(self) -> dict[str, Callable[[str], str | int | None]]:
        """Host calls by name."""
        return {
            "deepsleep": self._deepsleep,
            "reset": self._reset,
            "causes": lambda _: f"{self._reset_cause} {self._wake_reason}",
            "unique_id": lambda _: self._unique_id.hex(),
            "advance": lambda payload: self._clock.advance(int(payload)),
            "heap": self._heap,
            "pin": self._pin,
            "adc": self._adc,
            "rtc_get": lambda _: self._rtc_get(),
            "rtc_set": self._rtc_set,
            "rtc_memory": self._rtc_memory,
            "wdt": lambda payload: self._clock.arm_watchdog(int(payload) * 1000),
            "feed": lambda _: self._clock.feed_watchdog(),
            "ow_reset": self._one_wire_reset,
            "ow_write": self._one_wire_write,
            "ow_read": self._one_wire_read,
            "uart_init": self._uart_init,
            "uart_deinit": self._uart_deinit,
            "uart_write": self._uart_write,
            "uart_any": self._uart_any,
            "uart_read": self._uart_read,
            "uart_wait": self._uart_wait,
            "uart_txdone": self._uart_txdone,
            "uart_flush": self._uart_flush,
            "i2c_init": self._i2c_init,
            "i2c_scan": self._i2c_scan,
            "i2c_write": self._i2c_write,
            "i2c_read": self._i2c_read,
            "nvs_get_blob": self._nvs_get_blob,
            "nvs_set_blob": self._nvs_set_blob,
            "nvs_get_i32": self._nvs_get_i32,
            "nvs_set_i32": self._nvs_set_i32,
            "nvs_erase": self._nvs_erase,
            "partitions": self._partitions,
            "wake_on": self._wake_on,
        }

    def power_down(self) -> None:
        """Pins float, switched rails fall; called when the run has ended."""
        for pin in [p for p, level in self._levels.items() if level is not None]:
            self._set_level(pin, None)

    def _memory(self, address: int, size: int) -> memoryview:
        assert self._vm is not None  # noqa: S101 - attached before the run
        return self._vm.memory(address, size)

    # --- ends of a run ---

    def _deepsleep(self, payload: str) -> NoReturn:
        duration_ms = int(payload)
        raise DeepSleep(None if duration_ms < 0 else duration_ms * 1000)

    def _reset(self, payload: str) -> NoReturn:
        raise Reset(soft=payload == "soft")

    def _heap(self, payload: str) -> None:
        free = int(payload)
        self.heap_low = free if self.heap_low is None else min(self.heap_low, free)

    # --- pins ---

    def _pin(self, payload: str) -> int:
        """`pin in`, `pin out level`, `pin get`: configure, drive or read; returns the level."""
        number, action, *level = payload.split()
        pin = int(number)
        if action == "out" and level:
            self._set_level(pin, int(level[0]))
        elif action == "in":
            self._set_level(pin, None)
        driven = self._levels.get(pin)
        return self._wiring.levels.get(pin, 0) if driven is None else driven

    def _wake_on(self, payload: str) -> None:
        """`pin level`, or nothing."""
        pin, *level = map(int, payload.split()) if payload else (None,)
        if pin is not None and pin not in _RTC_PINS:
            raise ValueError("invalid pin")
        self.wake_on = None if pin is None else (pin, level[0])

    def _set_level(self, pin: int, level: int | None) -> None:
        before = self._levels.get(pin)
        self._levels[pin] = level
        if bool(before) != bool(level):
            for switch in self._wiring.power:
                switch.power_changed(pin, level or 0, self._clock.now_us())

    def _adc(self, payload: str) -> int:
        """`pin attenuation`: the calibrated reading in µV."""
        pin, attenuation = map(int, payload.split())
        self._clock.advance(_ADC_US)
        if attenuation not in _ADC_FULL_SCALE_UV:
            raise ValueError("invalid atten")
        source = self._wiring.analog.get(pin)
        if source is None:
            return 0
        full_scale = _ADC_FULL_SCALE_UV[attenuation]
        microvolts = source.microvolts(pin, dict(self._levels), self._clock.now_us())
        if microvolts < _ADC_FLOOR_UV:
            return 0
        step = full_scale / 4095
        return round(round(min(microvolts, full_scale) / step) * step)

    # --- RTC ---

    def _rtc_get(self) -> str:
        moment = _EPOCH + datetime.timedelta(microseconds=self._clock.rtc_us())
        t = moment.timetuple()
        return (
            f"{t.tm_year} {t.tm_mon} {t.tm_mday} {t.tm_wday} {t.tm_hour} {t.tm_min} {t.tm_sec} "
            f"{moment.microsecond}"
        )

    def _rtc_set(self, payload: str) -> None:
        year, month, day, _weekday, hour, minute, second, micro = map(int, payload.split())
        start = datetime.datetime(year, month, day, tzinfo=datetime.UTC)
        moment = start + datetime.timedelta(
            hours=hour, minutes=minute, seconds=second, microseconds=micro
        )
        self._clock.set_rtc((moment - _EPOCH) // datetime.timedelta(microseconds=1))

    def _rtc_memory(self, payload: str) -> int:
        """`get address` or `set address size`: the content's length in bytes."""
        action, *numbers = payload.split()
        if action == "size":
            return len(self.rtc_memory)
        address = int(numbers[0])
        if action == "get":
            self._memory(address, len(self.rtc_memory))[:] = self.rtc_memory
        else:
            size = int(numbers[1])
            if size > RTC_MEMORY_BYTES:
                raise ValueError("buffer too long")
            self.rtc_memory[:] = self._memory(address, size)
        return len(self.rtc_memory)

    # --- 1-Wire ---

    def _one_wire_reset(self, payload: str) -> int:
        device = self._wiring.one_wire.get(int(payload))
        self._clock.advance(_ONE_WIRE_RESET_US)
        return int(device is not None and device.reset(self._clock.now_us()))

    def _one_wire_write(self, payload: str) -> None:
        pin, address, size = map(int, payload.split())
        device = self._wiring.one_wire.get(pin)
        for byte in bytes(self._memory(address, size)):
            self._clock.advance(_ONE_WIRE_BYTE_US)
            if device is not None:
                device.write_byte(byte, self._clock.now_us())

    def _one_wire_read(self, payload: str) -> None:
        pin, address, size = map(int, payload.split())
        device = self._wiring.one_wire.get(pin)
        out = bytearray()
        for _ in range(size):
            self._clock.advance(_ONE_WIRE_BYTE_US)
            out.append(0xFF if device is None else device.read_byte(self._clock.now_us()))
        self._memory(address, size)[:] = out

    # --- UART ---

    def _uart_init(self, payload: str) -> None:
        """`uart baudrate bits parity stop invert`; parity −1: none."""
        number, baudrate, bits, parity, stop, invert = map(int, payload.split())
        if baudrate <= 0 or number not in _UARTS:
            raise ValueError("invalid UART or baudrate")
        settings = UartSettings(
            baudrate,
            bits,
            None if parity < 0 else parity,
            stop,
            is_tx_inverted=bool(invert & _UART_INV_TX),
            is_rx_inverted=bool(invert & _UART_INV_RX),
        )
        device = self._wiring.uart.get(number)
        if isinstance(device, HearsLine):
            device.line_set(settings)
        now_us = self._clock.now_us()
        before = self._uarts.get(number)
        if before is None:
            self._uarts[number] = _Uart(settings, [], now_us, now_us)
            return
        self._listen(number, before)
        # It waits until all is sent, and a new setting does not empty the receive buffer.
        self._clock.advance(before.sent_us - now_us)
        before.settings = settings

    def _uart(self, number: int) -> _Uart:
        if number not in self._uarts:
            raise OSError(errno.ENODEV, "UART not initialised")
        return self._uarts[number]

    def _uart_deinit(self, payload: str) -> None:
        self._uarts.pop(int(payload), None)

    def _uart_write(self, payload: str) -> int:
        number, address, size = map(int, payload.split())
        uart = self._uart(number)
        data = bytes(self._memory(address, size))
        start_us = max(self._clock.now_us(), uart.sent_us)
        uart.sent_us = start_us + uart.settings.character_us(len(data))
        if line := self._wiring.lines.get(number):
            line.sent(data, uart.settings, start_us)
        device = self._wiring.uart.get(number)
        for delay_us, reply in device.receive(data, uart.sent_us) if device is not None else ():
            self._arrives(uart, uart.sent_us + delay_us, reply)
        return len(data)

    def _arrives(self, uart: _Uart, start_us: int, data: bytes) -> None:
        uart.arriving += [
            (start_us + uart.settings.character_us(i + 1), b) for i, b in enumerate(data)
        ]
        uart.arriving.sort(key=lambda item: item[0])

    def _listen(self, number: int, uart: _Uart) -> None:
        """Take over what a line has said up to now."""
        line, now_us = self._wiring.lines.get(number), self._clock.now_us()
        if line is None or now_us <= uart.heard_us:
            return
        for arrival_us, data in line.heard(uart.settings, uart.heard_us, now_us):
            uart.arriving += [(arrival_us, byte) for byte in data]
        uart.arriving.sort(key=lambda item: item[0])
        uart.heard_us = now_us

    def _uart_arrived(self, number: int) -> int:
        uart = self._uart(number)
        self._listen(number, uart)
        now = self._clock.now_us()
        return sum(1 for arrival_us, _ in uart.arriving if arrival_us <= now)

    def _uart_any(self, payload: str) -> int:
        self._clock.advance(_UART_LOOK_US)
        return self._uart_arrived(int(payload))

    def _uart_read(self, payload: str) -> int:
        """`uart address size`: bytes that have arrived, at most `size`."""
        number, address, size = map(int, payload.split())
        uart = self._uart(number)
        count = min(size, self._uart_arrived(number))
        self._memory(address, count)[:] = bytes(byte for _, byte in uart.arriving[:count])
        del uart.arriving[:count]
        return count

    def _uart_wait(self, payload: str) -> int:
        """`uart timeout_us`: wait for one byte; how many are there then."""
        number, timeout_us = map(int, payload.split())
        uart = self._uart(number)
        end_us = self._clock.now_us() + timeout_us
        while not self._uart_arrived(number) and (left_us := end_us - self._clock.now_us()) > 0:
            if number in self._wiring.lines:
                self._clock.advance(min(left_us, _LINE_STEP_US))
            elif uart.arriving:
                self._clock.advance(min(left_us, uart.arriving[0][0] - self._clock.now_us()))
            else:
                self._clock.advance(left_us)
        return self._uart_arrived(number)

    def _uart_txdone(self, payload: str) -> int:
        self._clock.advance(_UART_LOOK_US)
        return int(self._clock.now_us() >= self._uart(int(payload)).sent_us)

    def _uart_flush(self, payload: str) -> None:
        uart = self._uart(int(payload))
        self._clock.advance(uart.sent_us - self._clock.now_us())

    # --- I²C ---

    def _i2c_init(self, payload: str) -> None:
        bus, frequency_hz, timeout_us = map(int, payload.split())
        if bus not in _I2C_BUSES or frequency_hz <= 0:
            raise ValueError("invalid I2C or frequency")
        self._i2c_hz[bus] = frequency_hz, timeout_us

    def _i2c_device(self, bus: int, address: int, size: int) -> I2cDevice:
        """Who answers there, after the time that `size` bytes and the address take on the bus."""
        frequency_hz, timeout_us = self._i2c_hz[bus]
        now_us = self._clock.now_us()
        if any(one.holds_line(now_us) for (at, _), one in self._wiring.i2c.items() if at == bus):
            self._clock.advance(timeout_us)
            raise OSError(errno.ETIMEDOUT, "bus held")
        device = self._wiring.i2c.get((bus, address))
        clocks = _I2C_CLOCKS_PER_BYTE * (1 + (size if device is not None else 0))
        self._clock.advance(clocks * 1_000_000 // frequency_hz)
        if device is None:
            raise OSError(errno.ENODEV, "not acknowledged")
        return device

    def _i2c_scan(self, payload: str) -> str:
        bus = int(payload)
        found = []
        for address in range(0x08, 0x78):
            try:
                device = self._i2c_device(bus, address, 0)
            except OSError:
                continue
            if device.read(0, self._clock.now_us()) is not None:
                found.append(str(address))
        return " ".join(found)

    def _i2c_write(self, payload: str) -> None:
        """`bus address memory size`"""
        bus, address, memory, size = map(int, payload.split())
        data = bytes(self._memory(memory, size))
        if not self._i2c_device(bus, address, size).write(data, self._clock.now_us()):
            raise OSError(errno.ENODEV, "not acknowledged")

    def _i2c_read(self, payload: str) -> None:
        """`bus address memory size`"""
        bus, address, memory, size = map(int, payload.split())
        data = self._i2c_device(bus, address, size).read(size, self._clock.now_us())
        if data is None:
            raise OSError(errno.ENODEV, "not acknowledged")
        self._memory(memory, size)[:] = data

    # --- NVS and partitions ---

    def _nvs_get_blob(self, payload: str) -> int:
        """`namespace key address size`: the blob's length; only fetched when size is enough."""
        namespace, key, address, size = payload.split("\0")
        blob = self._nvs.blob(namespace, key)
        if len(blob) <= int(size):
            self._memory(int(address), len(blob))[:] = blob
        return len(blob)

    def _nvs_set_blob(self, payload: str) -> None:
        namespace, key, address, size = payload.split("\0")
        self._nvs.set_blob(namespace, key, bytes(self._memory(int(address), int(size))))

    def _nvs_get_i32(self, payload: str) -> int:
        namespace, key = payload.split("\0")
        return self._nvs.i32(namespace, key)

    def _nvs_set_i32(self, payload: str) -> None:
        namespace, key, value = payload.split("\0")
        self._nvs.set_i32(namespace, key, int(value))

    def _nvs_erase(self, payload: str) -> None:
        namespace, key = payload.split("\0")
        self._nvs.erase(namespace, key)

    def _partitions(self, _payload: str) -> str:
        return ";".join(f"{p.kind} {p.subtype} {p.offset} {p.size} {p.label}" for p in PARTITIONS)
