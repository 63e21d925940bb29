"""A board made of software: flash, RTC, pins and network around one MicroPython machine per wake.

    board = Board(folder, Wiring(), start_utc_us=1_780_000_000_000_000)
    board.write_file("/main.py", b"import machine\\nmachine.deepsleep(900_000)")
    board.exec("import esp32; n = esp32.NVS('id'); n.set_blob('node_id', b'n-3f9a1c')")   # -> stdout
    board.power_on()
    result = board.run_wake()          # boots: boot.py, then main.py
    result.reason, result.sleep_us     # "deepsleep", 900_000_000
    board.run_wake()                   # the next boot, 15 simulated minutes later

`board.network_policy` (faults), `board.power_cut` (for the next run) and `board.wiring` may be changed between
runs, the policy also during one. Nothing that the firmware does can raise here: MemoryError, traps,
uncaught exceptions and endless loops end a wake with a reason.

State is kept in the folder: `flash.bin` (the chip), `rtc.bin` (what the RTC domain keeps while asleep, and
the simulated time). Between runs a board holds no machine and no open file. When the host process is killed during a
wake, the next `Board(folder)` comes up as after a power cut at that moment.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from hardware.virtual_board import errno_esp32 as errno
from hardware.virtual_board.app_partitions import AppPartitions
from hardware.virtual_board.clock import AwakeTooLong, BoardClock, WatchdogBite
from hardware.virtual_board.filesystem import FileSystem, FlashFolder
from hardware.virtual_board.flash import Flash, PowerCut, PowerCutPlan, make_empty_flash
from hardware.virtual_board.network import Network, NetworkPolicy
from hardware.virtual_board.nvs import Nvs
from hardware.virtual_board.peripherals import (
    RTC_MEMORY_BYTES,
    DeepSleep,
    Peripherals,
    Reset,
)
from hardware.virtual_board.rom import RomFile, rom_modules
from hardware.virtual_board.vm import EndlessLoop, GuestTrap, Vm
from hardware.virtual_board.wiring import Brownout, Wiring

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware.virtual_board.flash import FlashCounters
    from hardware.virtual_board.wasi import OpenFile

Reason = Literal["deepsleep", "reset", "watchdog", "crash", "power_cut", "brownout", "halted"]

HEAP_BYTES = 100 * 1024
# On an ESP32 the built-in modules are C code in flash; here they are bytecode in the heap. This is what
# all of them take when loaded (tests/hardware/test_board.py measures it).
ROM_HEAP_BYTES = 26_000
# ROM loader, flash check and MicroPython's start until boot.py (docs/budgets.md: stock boot 0.42-0.64 s).
BOOT_US = 450_000
_CONSOLE_LIMIT = 256 * 1024
_WAKE_LIMIT_S = 3600
_POWER_BACK_AFTER_US = 120_000_000

# machine.reset_cause() and machine.wake_reason() of the ESP32 port.
_POWER_ON, _HARD_RESET, _WDT_RESET, _DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
_EXT0_WAKE, _TIMER_WAKE = 2, 4

_START = "import sys\nsys.path[:]=['/rom','','.frozen','/lib']\ndel sys\n"
# `sys` is in the machine and cannot be changed; what is imported under its name from then on can be another object.
_AS_VERSION = """
import sys
class _Sys: pass
_sys = _Sys()
for _name in dir(sys):
    setattr(_sys, _name, getattr(sys, _name))
from collections import namedtuple
_own = sys.implementation
_sys.implementation = namedtuple('implementation', ('name', 'version', '_machine', '_mpy'))(
    _own.name, {version!r} + ('',), _own._machine, _own._mpy)
sys.modules['sys'] = _sys
del sys, _Sys, _sys, _name, _own, namedtuple
"""
_BOOT = """
try:
    for _f in {files!r}:
        execfile(_f)
except SystemExit:
    import machine
    machine.soft_reset()
"""


class Halted(Exception):
    """Somebody outside stopped the board in what it did: its reset line fell, or it was switched off."""


class ScriptFailed(Exception):
    """A script given to `exec` ended with an exception; the text is the node's console."""


@dataclass(frozen=True)
class WakeResult:
    """How one boot went.

    Attributes:
        reason: what ended it. "crash" means boot.py or main.py ended without sleeping and no watchdog was
            armed, or the machine itself failed: the board would stand still until someone presses reset.
        sleep_us: what was asked of deep sleep; 0 for other reasons, None for "until woken by a pin".
        stdout: what the node printed, tracebacks included.
        heap_low: free heap after a collection when the node went to sleep, in bytes, without what was
            added for built-in modules; None when it did not sleep. The true low-water mark is found by
            running with a smaller `heap_bytes`.
        wake_us: true UTC in µs at which the next boot begins; None when nothing will wake the board.
        started_us, ended_us: true UTC in µs.
        error: one line on what went wrong, empty for deep sleep and reset.
        connections: TCP connections tried.
        radio_us: how long the radio was on.
    """

    reason: Reason
    sleep_us: int | None
    stdout: str
    heap_low: int | None
    wake_us: int | None
    started_us: int
    ended_us: int
    error: str
    connections: int
    radio_us: int
    flash: FlashCounters

    @property
    def awake_us(self) -> int:
        """How long the node was awake, boot included."""
        return self.ended_us - self.started_us


class Board:
    """One board in one folder. Not for use by two threads at a time (a second one waits)."""

    def __init__(
        self,
        folder: Path | str,
        wiring: Wiring | None = None,
        *,
        start_utc_us: int = 0,
        network_policy: NetworkPolicy | None = None,
        heap_bytes: int = HEAP_BYTES,
        drift_ppm: float = 0,
        wake_limit_s: int = _WAKE_LIMIT_S,
    ) -> None:
        """Open a board's folder; an empty one gets a chip with a formatted file system.

        Args:
            start_utc_us: true time of the first power-on, in µs since 1970; a folder with a board in it
                keeps its own time.
            drift_ppm: how much the RTC's oscillator runs fast while the node sleeps.
            wake_limit_s: simulated time after which a wake without watchdog is given up as a crash.
        """
        self.folder = Path(folder)
        self.wiring = wiring if wiring is not None else Wiring()
        self.network_policy = network_policy if network_policy is not None else NetworkPolicy()
        self.heap_bytes = heap_bytes
        self.drift_ppm = drift_ppm
        self.power_cut: PowerCutPlan | None = None
        self._wake_on: tuple[int, int] | None = None  # pin and level that end the sleep
        self._wake_limit_us = wake_limit_s * 1_000_000
        self._lock = threading.RLock()
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(self.folder.resolve().name.encode()).digest()
        self.unique_id = bytes.fromhex("246f28") + digest[:3]
        self._rtc = _RtcDomain.load(self.folder / "rtc.bin", start_utc_us)
        if not self.flash_path.exists():
            self.erase_flash()
            self.format()

    @property
    def flash_path(self) -> Path:
        """The chip's image."""
        return self.folder / "flash.bin"

    @property
    def now_us(self) -> int:
        """True UTC in µs: of the next boot's beginning, when the board sleeps."""
        return self._rtc.now_us

    @property
    def rtc_us(self) -> int:
        """What the RTC shows at `now_us`, in µs since 2000."""
        return self._rtc.rtc_us

    @property
    def reset_cause(self) -> int:
        """What `machine.reset_cause()` says in the next boot."""
        return self._rtc.reset_cause

    @property
    def boots(self) -> int:
        """Boots since the folder was made."""
        return self._rtc.boots

    # --- power ---

    def power_on(self, *, at_utc_us: int | None = None, keeps_memory: bool = False) -> None:
        """Take the supply away and give it back: RTC at 2000-01-01, RTC memory garbage unless that was quick.

        `at_utc_us` moves true time forward to that moment.
        """
        with self._lock:
            self._rtc.lose_power(keeps_memory=keeps_memory)
            if at_utc_us is not None:
                self._rtc.now_us = max(self._rtc.now_us, at_utc_us)
            self._rtc.save(awake=False)

    def press_reset(self, *, at_utc_us: int | None = None) -> None:
        """The EN button: a hard reset, also out of deep sleep (RTC memory and clock survive)."""
        with self._lock:
            if at_utc_us is not None:
                self.pass_time(until_utc_us=at_utc_us)
            self._rtc.reset_cause, self._rtc.wake_reason = _HARD_RESET, 0
            self._rtc.save(awake=False)

    def press_button(self, pin: int, *, at_utc_us: int) -> bool:
        """Somebody pulls a pin low for a moment; True when that ends the deep sleep that this object has seen begin."""
        with self._lock:
            if self._wake_on != (pin, 0) or at_utc_us >= self._rtc.now_us:
                return False
            self.cut_sleep_short(at_utc_us=at_utc_us)
            self._rtc.wake_reason = _EXT0_WAKE
            self._rtc.save(awake=False)
            return True

    def pass_time(self, *, until_utc_us: int) -> None:
        """True time goes on to that moment with the RTC behind it, while nothing runs."""
        with self._lock:
            passed = max(0, until_utc_us - self._rtc.now_us)
            self._rtc.now_us += passed
            self._rtc.rtc_us += passed

    def cut_sleep_short(self, *, at_utc_us: int) -> None:
        """A deep sleep does not last until its end: it is only that moment now."""
        with self._lock:
            early = max(0, self._rtc.now_us - at_utc_us)
            self._rtc.now_us -= early
            self._rtc.rtc_us -= early

    def run_wake(self) -> WakeResult:
        """Boot: boot.py, then main.py, until the node sleeps, resets, hangs, crashes or loses power."""
        return self.boot(lambda: Run(self, boot_us=BOOT_US))

    def boot(self, make_run: Callable[[], Run]) -> WakeResult:
        """As `run_wake`, with what exists while the node is awake made by the caller."""
        with self._lock:
            self._rtc.boots += 1
            self._rtc.save(awake=True)
            with make_run() as run:
                result = run.boot()
            self._rtc.save(awake=False)
            return result

    def exec(self, code: str) -> str:
        """Run a script on the board, as `mpremote exec` would, and return what it printed.

        RTC memory, NVS and files change as the script says; boot and reset causes do not.

        Raises:
            ScriptFailed: the script ended with an exception.
        """
        with self._lock:
            self._rtc.save(awake=True)
            try:
                with Run(self, boot_us=0) as run:
                    return run.script(code)
            finally:
                self._rtc.save(awake=False)

    # --- flash, from the bench ---

    def erase_flash(self) -> None:
        """Wipe the chip: NVS and file system too."""
        with self._lock:
            make_empty_flash(self.flash_path)

    def format(self) -> None:
        """An empty file system."""
        with self._lock, _opened(self.flash_path) as flash:
            FileSystem(flash, fresh=True)

    def write_file(self, path: str, data: bytes) -> None:
        """Write one file, with the folders above it, through the real littlefs."""
        self.write_files({path: data})

    def write_files(self, files: dict[str, bytes]) -> None:
        """Write many files with one mount."""
        with self._lock, _opened(self.flash_path) as flash:
            file_system = FileSystem(flash)
            for path, data in files.items():
                file_system.write_file(path, data)

    def read_file(self, path: str) -> bytes:
        """A whole file; OSError with the node's number when it is not there."""
        with self._lock, _opened(self.flash_path) as flash:
            return FileSystem(flash).read_file(path)

    def remove_file(self, path: str) -> None:
        """Remove one file or empty folder."""
        with self._lock, _opened(self.flash_path) as flash:
            FileSystem(flash).unlink(path)

    def list_files(self, path: str = "/") -> list[tuple[str, int]]:
        """Every file below `path` as (path, size in bytes)."""
        with self._lock, _opened(self.flash_path) as flash:
            return FileSystem(flash).walk(path)

    def nvs_blob(self, namespace: str, key: str) -> bytes:
        """A value of the NVS partition; OSError when it is not there."""
        with self._lock, _opened(self.flash_path) as flash:
            return Nvs(flash).blob(namespace, key)


class _opened:  # noqa: N801 - used as a word in `with`
    def __init__(self, path: Path) -> None:
        self._flash = Flash(path)

    def __enter__(self) -> Flash:
        return self._flash

    def __exit__(self, *_exc: object) -> None:
        self._flash.close()


class Run:
    """Everything that exists only while the node is awake."""

    def __init__(
        self,
        board: Board,
        *,
        boot_us: int,
        clock: BoardClock | None = None,
        flash: Flash | None = None,
    ) -> None:
        """A clock or an open flash that is given goes on after this run; otherwise the run has its own."""
        self._board = board
        rtc = board._rtc
        self._rtc = rtc
        self._started_us = rtc.now_us
        self._clock = clock or BoardClock(
            now_us=rtc.now_us, rtc_us=rtc.rtc_us, awake_limit_us=board._wake_limit_us
        )
        self._clock.advance(boot_us)
        self._has_own_flash = flash is None
        self._flash = flash or Flash(board.flash_path, power_cut=board.power_cut)
        board.power_cut = None
        self._console = bytearray()
        self._network = Network(
            clock=self._clock,
            policy=board.network_policy,
            mac=board.unique_id,
            power=board.wiring.power,
        )
        self._peripherals: Peripherals | None = None
        self._files: FileSystem | None = None
        self._rom_read: set[str] = set()
        self.vm: Vm | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._network.close()
        if self._has_own_flash:
            self._flash.close()

    def boot(self) -> WakeResult:
        """Run boot.py and main.py and say how it ended."""
        reason: Reason = "crash"
        error = ""
        sleep_us: int | None = 0
        try:
            self._mount()
            code = self._start(_START + self.program())
            error = "the program ended without sleeping" if code == 0 else self._last_line()
        except DeepSleep as sleep:
            reason, sleep_us = "deepsleep", sleep.duration_us
        except Reset as reset:
            reason = "reset"
            self._rtc.reset_cause = SOFT_RESET if reset.soft else _HARD_RESET
        except WatchdogBite:
            reason, error = "watchdog", "the watchdog was not fed"
        except EndlessLoop:
            error = "endless loop"
        except AwakeTooLong:
            error = "awake for too long"
        except Halted:
            reason = "halted"
        except PowerCut:
            reason, error = "power_cut", "the power was cut"
        except Brownout as brownout:
            reason, error = "brownout", str(brownout)
        except GuestTrap as trap:
            error = f"the machine failed: {trap}"
        except OSError as cause:  # nothing to mount: MicroPython would loop in _boot.py
            error = f"no file system: {cause}"
        self._power_down()
        # A program that ended or hangs stands still until the watchdog bites.
        if reason == "crash" and self._clock.run_into_watchdog():
            reason = "watchdog"
        return self._concluded(reason, sleep_us, error)

    def script(self, code: str) -> str:
        """Run `code` and return the console."""
        try:
            self._mount()
            failed = self._start(_START + code) != 0
        except (DeepSleep, Reset):
            failed = False
        except (WatchdogBite, EndlessLoop, AwakeTooLong, PowerCut, Brownout, GuestTrap) as error:
            self._console += f"{type(error).__name__}: {error}\n".encode()
            failed = True
        self._power_down()
        self._rtc.now_us, self._rtc.rtc_us = self._clock.now_us(), self._clock.rtc_us()
        if failed:
            raise ScriptFailed(self._text())
        return self._text()

    # --- what a board with somebody at its console does differently ---

    # Called in the machine's thread while it runs (see vm.Vm).
    overseer: Callable[[], None] | None = None
    extra_heap_bytes = 0

    def program(self) -> str:
        """What the machine runs after a reset."""
        return _BOOT.format(files=self.boot_files())

    def operations(self) -> dict[str, Callable[[str], str | int | None]]:
        """Host calls beside those of the hardware."""
        return {}

    def boot_files(self) -> list[str]:
        """The files that run after a reset, as far as they are there."""
        return [name for name in ("boot.py", "main.py") if self._mounted().is_file("/" + name)]

    def _mount(self) -> None:
        self._files = FileSystem(self._flash)

    def _start(self, code: str) -> int:
        self._peripherals = Peripherals(
            clock=self._clock,
            wiring=self._board.wiring,
            nvs=Nvs(self._flash),
            rtc_memory=self._rtc.memory,
            reset_cause=self._rtc.reset_cause,
            wake_reason=self._rtc.wake_reason,
            unique_id=self._board.unique_id,
        )
        operations = {
            **self._peripherals.operations(),
            **self._network.operations(),
            **self.operations(),
        }
        apps = AppPartitions(self._flash)
        apps.boot()
        version = apps.version()
        if version is not None:
            code = _AS_VERSION.format(version=version) + code
        operations |= apps.operations(lambda address, size: vm.memory(address, size))
        operations["statvfs"] = lambda _: "{} {} {}".format(*self._mounted().blocks())
        self.vm = vm = Vm(
            files=self, clock=self._clock, operations=operations, overseer=self.overseer
        )
        self._peripherals.attach(vm)
        self._network.attach(vm)
        heap = self._board.heap_bytes + ROM_HEAP_BYTES + self.extra_heap_bytes
        return vm.run(arguments=["micropython", "-X", f"heapsize={heap}", "-c", code])

    def _mounted(self) -> FileSystem:
        assert self._files is not None  # noqa: S101 - mounted before the machine starts
        return self._files

    def _power_down(self) -> None:
        self._network.close()
        self._clock.stop_wall_time()
        if self._peripherals is not None:
            self._peripherals.power_down()

    def _concluded(self, reason: Reason, sleep_us: int | None, error: str) -> WakeResult:
        rtc, clock = self._rtc, self._clock
        ended_us = clock.now_us()
        rtc.now_us, rtc.rtc_us = ended_us, clock.rtc_us()
        rtc.wake_reason = 0
        peripherals = self._peripherals
        self._board._wake_on = None if peripherals is None else peripherals.wake_on
        wake_us: int | None = ended_us
        if reason == "deepsleep":
            rtc.reset_cause, rtc.wake_reason = _DEEPSLEEP_RESET, _TIMER_WAKE
            wake_us = None if sleep_us is None else rtc.sleep(sleep_us, self._board.drift_ppm)
        elif reason == "watchdog":
            rtc.reset_cause = _WDT_RESET
        elif reason == "crash":
            rtc.reset_cause = _HARD_RESET  # what whoever comes will press
        elif reason == "power_cut":
            rtc.lose_power()
        elif reason == "brownout":
            rtc.lose_power(keeps_memory=True)
        return WakeResult(
            reason=reason,
            sleep_us=sleep_us,
            stdout=self._text(),
            heap_low=self._heap_low(),
            wake_us=wake_us,
            started_us=self._started_us,
            ended_us=ended_us,
            error=error,
            connections=self._network.connections,
            radio_us=self._network.radio.on_us,
            flash=self._flash.counters,
        )

    def _heap_low(self) -> int | None:
        if self._peripherals is None or self._peripherals.heap_low is None:
            return None
        # The allowance for built-in modules that were never imported is not the firmware's to use.
        modules = rom_modules()
        unused = sum(len(code) for name, code in modules.items() if name not in self._rom_read)
        total = sum(map(len, modules.values()))
        return self._peripherals.heap_low - ROM_HEAP_BYTES * unused // total

    def _text(self) -> str:
        return self._console.decode(errors="replace")

    def _last_line(self) -> str:
        return (self._text().strip().splitlines() or ["the program failed"])[-1]

    # --- wasi.GuestFiles: littlefs at /, built-in modules at /rom ---

    def open(self, path: str, *, read: bool, write: bool, append: bool, flags: int) -> OpenFile:
        """Open from flash or ROM."""
        if path.startswith("/rom/"):
            content = rom_modules().get(path[5:])
            if content is None:
                raise OSError(errno.ENOENT, path)
            self._rom_read.add(path[5:])
            return RomFile(content)
        if path == "/rom":
            return FlashFolder([(name, False) for name in rom_modules()])
        return self._mounted().open(path, read=read, write=write, append=append, flags=flags)

    def stat(self, path: str) -> tuple[bool, int]:
        """(is_directory, size)."""
        if path.startswith("/rom/"):
            content = rom_modules().get(path[5:])
            if content is None:
                raise OSError(errno.ENOENT, path)
            return False, len(content)
        return self._mounted().stat(path)

    def mkdir(self, path: str) -> None:
        """Make one folder."""
        self._mounted().mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        self._mounted().rmdir(path)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self._mounted().unlink(path)

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        self._mounted().rename(old, new)

    def console(self, data: bytes) -> None:
        """Keep what the node prints, up to a limit."""
        if len(self._console) < _CONSOLE_LIMIT:
            self._console += data

    def typed(self, size: int) -> bytes:
        """Nobody is at the console."""
        return b""


@dataclass
class _RtcDomain:
    """What survives deep sleep and reset, and simulated time itself; one small file."""

    path: Path
    now_us: int
    rtc_us: int
    reset_cause: int
    wake_reason: int
    boots: int
    memory: bytearray

    _HEAD = struct.Struct("<4s?3xqqBB2xIH2x")
    _MAGIC = b"RTC1"

    @classmethod
    def load(cls, path: Path, start_utc_us: int) -> _RtcDomain:
        """The kept state; a power-on when there is none or the last wake never ended."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raw = b""
        fresh = cls(path, start_utc_us, 0, _POWER_ON, 0, 0, bytearray())
        if len(raw) < cls._HEAD.size + 4:
            fresh.lose_power()
            return fresh
        magic, awake, now_us, rtc_us, cause, wake, boots, size = cls._HEAD.unpack_from(raw)
        body = raw[: cls._HEAD.size + size]
        (crc,) = struct.unpack_from("<I", raw, len(body))
        state = cls(path, now_us, rtc_us, cause, wake, boots, bytearray(body[cls._HEAD.size :]))
        intact = magic == cls._MAGIC and crc == zlib.crc32(body)
        if not intact:
            fresh.lose_power()
            return fresh
        if awake:
            state.lose_power()
            # When in the wake it died is not known: later than all it can have done, so that time never runs back.
            state.now_us += _POWER_BACK_AFTER_US
        return state

    def save(self, *, awake: bool) -> None:
        """Write the state in one `pwrite`; `awake` makes a later `load` a power-on."""
        head = self._HEAD.pack(
            self._MAGIC,
            awake,
            self.now_us,
            self.rtc_us,
            self.reset_cause,
            self.wake_reason,
            self.boots,
            len(self.memory),
        )
        body = head + self.memory
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(file, body + struct.pack("<I", zlib.crc32(body)), 0)
        finally:
            os.close(file)

    def sleep(self, asked_us: int, drift_ppm: float) -> int:
        """Pass a deep sleep; true time of the wake. A fast oscillator ends it early."""
        self.now_us += round(asked_us / (1 + drift_ppm / 1e6))
        self.rtc_us += asked_us
        return self.now_us

    def lose_power(self, *, keeps_memory: bool = False) -> None:
        """RTC at its epoch, RTC memory garbage (repeatable: drawn from the boot count).

        A supply that only dips resets the chip before its RTC memory is lost, which MicroPython leaves as it is
        (RTC_NOINIT_ATTR in ports/esp32/machine_rtc.c). It reports both as a power-on (modmachine.c, reset_cause).
        """
        self.rtc_us = 0
        self.reset_cause, self.wake_reason = _POWER_ON, 0
        if keeps_memory:
            return
        self.memory = bytearray(random.Random(self.boots).randbytes(RTC_MEMORY_BYTES))  # noqa: S311
