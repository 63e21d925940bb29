"""The WASI functions that MicroPython's C library calls, answered by a board.

Files live on the board's littlefs (`/`) and in a read-only folder of built-in modules (`/rom`), which is
a preopened directory of its own so that `os.listdir("/")` shows what a real board's would.
Error numbers returned here become the node's `errno` unchanged, so they are the ESP32's, not WASI's.
(The *names* that MicroPython prints beside a number are still WASI's: `[Errno 2] EACCES` is ENOENT.)
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, Protocol

from hardware.virtual_board import errno_esp32 as errno

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware.virtual_board.vm import Vm

_ROOT_FD, _ROM_FD = 3, 4
_FIRST_FD = 5
_PREOPENS = {_ROOT_FD: b"/", _ROM_FD: b"/rom"}
_TYPE_CHARACTER, _TYPE_DIRECTORY, _TYPE_REGULAR = 2, 3, 4
_OPEN_CREATE, _OPEN_DIRECTORY, _OPEN_EXCLUSIVE, _OPEN_TRUNCATE = 1, 2, 4, 8
_FDFLAG_APPEND = 1
_RIGHT_READ, _RIGHT_WRITE = 2, 64
_ALL_RIGHTS = (1 << 30) - 1
_CLOCK_REALTIME = 0
_EVENT_CLOCK = 0
_ABSOLUTE_TIME = 1
# WASI's own number: the C library asks MicroPython what is pending, and calls again.
_EINTR = 27
_U32 = struct.Struct("<I")
_VECTOR = struct.Struct("<II")


class GuestExit(Exception):
    """The guest called `proc_exit`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"guest ended with {code}")
        self.code = code


class Interrupted(Exception):
    """Somebody at the console pressed Ctrl-C while the guest waited in a host function."""


class OpenFile(Protocol):
    """A file or folder that the guest has open.

    `window` holds content already fetched, `position` where the next read begins in it; a read that the
    window can serve alone is not asked for (`read_from_window`).
    """

    is_directory: bool
    window: bytes
    position: int

    def read(self, size: int) -> bytes:
        """Up to `size` bytes from the current position."""

    def write(self, data: bytes) -> int:
        """How many bytes were taken."""

    def seek(self, offset: int, whence: int) -> int:
        """The new position."""

    def sync(self) -> None:
        """On return the content survives a power cut."""

    def close(self) -> None:
        """Sync and give the file back."""

    def entries(self) -> list[tuple[str, bool]]:
        """A folder's (name, is_directory)."""


class GuestFiles(Protocol):
    """The file tree of one run; every method raises OSError with the node's numbers."""

    def open(
        self, path: str, *, read: bool, write: bool, append: bool, flags: int
    ) -> OpenFile:  # flags: _OPEN_*
        """Open a file or (with _OPEN_DIRECTORY) a folder."""

    def stat(self, path: str) -> tuple[bool, int]:
        """(is_directory, size)."""

    def mkdir(self, path: str) -> None:
        """Make one folder."""

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""

    def unlink(self, path: str) -> None:
        """Remove a file."""

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing what was there."""

    def console(self, data: bytes) -> None:
        """What the guest prints."""

    def typed(self, size: int) -> bytes:
        """Up to `size` bytes from the console, as soon as there is one; none when nobody is there.

        Raises:
            Interrupted: Ctrl-C came instead.
        """


class FileTable:
    """Numbers for open files, given out from 5 upwards like a C library expects."""

    def __init__(self) -> None:
        self.open_files: dict[int, OpenFile] = {}
        self._next = _FIRST_FD

    def add(self, file: OpenFile) -> int:
        """The new file's number."""
        number = self._next
        self._next += 1
        self.open_files[number] = file
        return number


def _path(vm: Vm, fd: int, address: int, size: int) -> str:
    path = bytes(vm.memory(address, size)).decode()
    if "." in path and ("./" in path or path.endswith(".")):
        path = _without_dots(path)
    return ("/rom/" if fd == _ROM_FD else "/") + path.strip("/")


def _without_dots(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _table(vm: Vm) -> dict[int, OpenFile]:
    return vm.file_table.open_files


def args_get(vm: Vm, pointers: int, buffer: int) -> int:
    return _strings(vm, vm.arguments, pointers, buffer)


def args_sizes_get(vm: Vm, count: int, size: int) -> int:
    return _string_sizes(vm, vm.arguments, count, size)


def environ_get(vm: Vm, pointers: int, buffer: int) -> int:
    return _strings(vm, vm.environment, pointers, buffer)


def environ_sizes_get(vm: Vm, count: int, size: int) -> int:
    return _string_sizes(vm, vm.environment, count, size)


def _strings(vm: Vm, strings: list[bytes], pointers: int, buffer: int) -> int:
    for string in strings:
        vm.memory(pointers, 4)[:] = struct.pack("<I", buffer)
        vm.memory(buffer, len(string))[:] = string
        pointers += 4
        buffer += len(string)
    return 0


def _string_sizes(vm: Vm, strings: list[bytes], count: int, size: int) -> int:
    vm.memory(count, 4)[:] = struct.pack("<I", len(strings))
    vm.memory(size, 4)[:] = struct.pack("<I", sum(map(len, strings)))
    return 0


def clock_time_get(vm: Vm, clock: int, _precision: int, result: int) -> int:
    now = vm.clock.realtime_ns() if clock == _CLOCK_REALTIME else vm.clock.monotonic_ns()
    vm.prove_alive()
    vm.memory(result, 8)[:] = struct.pack("<q", now)
    return 0


def poll_oneoff(vm: Vm, subscriptions: int, events: int, count: int, done: int) -> int:
    """Only ever asked to sleep: the first clock subscription decides."""
    vm.prove_alive()
    for i in range(count):
        raw = bytes(vm.memory(subscriptions + 48 * i, 48))
        userdata, kind, clock, timeout_ns, _precision, flags = struct.unpack("<QB7xI4xQQH6x", raw)
        if kind != _EVENT_CLOCK:
            continue
        if flags & _ABSOLUTE_TIME:
            real = clock == _CLOCK_REALTIME
            timeout_ns -= vm.clock.realtime_ns() if real else vm.clock.monotonic_ns()
        if not vm.is_interrupt_pending():
            try:
                vm.clock.sleep_ns(max(0, timeout_ns))
            except Interrupted:
                vm.interrupt()
        vm.memory(events, 32)[:] = struct.pack("<QHB21x", userdata, 0, kind)
        break
    vm.memory(done, 4)[:] = struct.pack("<I", 1)
    return 0


def fd_close(vm: Vm, fd: int) -> int:
    file = _table(vm).pop(fd, None)
    if file is None:
        return errno.EBADF
    return _numbered(file.close)


def fd_fdstat_get(vm: Vm, fd: int, result: int) -> int:
    if fd < _ROOT_FD:
        kind = _TYPE_CHARACTER
    elif fd in _PREOPENS:
        kind = _TYPE_DIRECTORY
    elif fd in _table(vm):
        kind = _TYPE_DIRECTORY if _table(vm)[fd].is_directory else _TYPE_REGULAR
    else:
        return errno.EBADF
    vm.memory(result, 24)[:] = struct.pack("<BxHxxxxQQ", kind, 0, _ALL_RIGHTS, _ALL_RIGHTS)
    return 0


def fd_prestat_get(vm: Vm, fd: int, result: int) -> int:
    if fd not in _PREOPENS:
        # The C library walks 3, 4, … until it meets WASI's own EBADF.
        return 8
    vm.memory(result, 8)[:] = struct.pack("<BxxxI", 0, len(_PREOPENS[fd]))
    return 0


def fd_prestat_dir_name(vm: Vm, fd: int, address: int, size: int) -> int:
    vm.memory(address, size)[:] = _PREOPENS[fd][:size]
    return 0


def read_from_window(vm: Vm, raw: Any) -> bool:
    """`fd_read` on the raw argument words when the file's window serves it; False when it does not.

    The guest reads modules some 30 bytes at a time, over a thousand times in a boot: this is half of a boot's
    calls into Python.
    """
    file = vm.file_table.open_files.get(raw[0])
    view = vm.view
    if file is None or raw[8] != 1 or raw[4] + 8 > len(view):
        return False
    address, size = _VECTOR.unpack_from(view, raw[4])
    start = file.position
    end = start + size
    if end > len(file.window) or address + size > len(view):
        return False
    view[address : address + size] = file.window[start:end]
    file.position = end
    _U32.pack_into(view, raw[12], size)
    return True


def fd_read(vm: Vm, fd: int, vectors: int, count: int, result: int) -> int:
    file = _table(vm).get(fd)
    if file is None:
        return errno.EBADF if fd != 0 else _read_console(vm, vectors, result)
    total = 0
    try:
        for i in range(count):
            got = _read_into(vm, file, vectors + 8 * i)
            total += got
            if not got:
                break
    except OSError as error:
        return error.errno or errno.EIO
    vm.memory(result, 4)[:] = _U32.pack(total)
    return 0


def _read_console(vm: Vm, vector: int, result: int) -> int:
    address, size = _VECTOR.unpack(vm.memory(vector, 8))
    if vm.is_interrupt_pending():
        return _EINTR
    try:
        data = vm.files.typed(size)
    except Interrupted:
        vm.interrupt()
        return _EINTR
    vm.memory(address, len(data))[:] = data
    vm.memory(result, 4)[:] = _U32.pack(len(data))
    return 0


def _read_into(vm: Vm, file: OpenFile, vector: int) -> int:
    address, size = _VECTOR.unpack(vm.memory(vector, 8))
    data = file.read(size)
    vm.memory(address, len(data))[:] = data
    return len(data)


def fd_write(vm: Vm, fd: int, vectors: int, count: int, result: int) -> int:
    parts = [bytes(vm.memory(address, size)) for address, size in _vectors(vm, vectors, count)]
    data = b"".join(parts)
    file = _table(vm).get(fd)
    try:
        if file is not None:
            written = file.write(data)
        elif fd in (1, 2):
            vm.files.console(data)
            written = len(data)
        else:
            return errno.EBADF
    except OSError as error:
        return error.errno or errno.EIO
    vm.memory(result, 4)[:] = struct.pack("<I", written)
    return 0


def _vectors(vm: Vm, address: int, count: int) -> list[tuple[int, int]]:
    raw = bytes(vm.memory(address, 8 * count))
    return list(struct.iter_unpack("<II", raw))


def fd_seek(vm: Vm, fd: int, offset: int, whence: int, result: int) -> int:
    file = _table(vm).get(fd)
    if file is None:
        return errno.EBADF
    signed = offset - (1 << 64) if offset >> 63 else offset
    try:
        position = file.seek(signed, whence)
    except OSError as error:
        return error.errno or errno.EIO
    vm.memory(result, 8)[:] = struct.pack("<Q", position)
    return 0


def fd_sync(vm: Vm, fd: int) -> int:
    file = _table(vm).get(fd)
    return 0 if file is None else _numbered(file.sync)


def fd_readdir(vm: Vm, fd: int, buffer: int, size: int, cookie: int, result: int) -> int:
    file = _table(vm).get(fd)
    if file is None or not file.is_directory:
        return errno.ENOTDIR
    out = bytearray()
    for number, (name, is_directory) in enumerate(file.entries()[cookie:], cookie + 1):
        encoded = name.encode()
        kind = _TYPE_DIRECTORY if is_directory else _TYPE_REGULAR
        out += struct.pack("<QQIB3x", number, number, len(encoded), kind) + encoded
        if len(out) >= size:
            break
    data = bytes(out[:size])  # a cut last entry tells the C library to ask again
    vm.memory(buffer, len(data))[:] = data
    vm.memory(result, 4)[:] = struct.pack("<I", len(data))
    return 0


def path_open(
    vm: Vm,
    fd: int,
    _lookup: int,
    address: int,
    size: int,
    flags: int,
    rights: int,
    _inherited: int,
    fd_flags: int,
    result: int,
) -> int:
    path = _path(vm, fd, address, size)
    try:
        if path == "/dev/random":
            file: OpenFile = _Random()
        else:
            file = vm.files.open(
                path,
                read=bool(rights & _RIGHT_READ),
                write=bool(rights & _RIGHT_WRITE),
                append=bool(fd_flags & _FDFLAG_APPEND),
                flags=flags,
            )
    except OSError as error:
        return error.errno or errno.EIO
    vm.memory(result, 4)[:] = struct.pack("<I", vm.file_table.add(file))
    return 0


def path_filestat_get(vm: Vm, fd: int, _flags: int, address: int, size: int, result: int) -> int:
    path = _path(vm, fd, address, size)
    try:
        is_directory, length = vm.files.stat(path)
    except OSError as error:
        return error.errno or errno.EIO
    kind = _TYPE_DIRECTORY if is_directory else _TYPE_REGULAR
    vm.memory(result, 64)[:] = struct.pack("<QQB7xQQQQQ", 1, 1, kind, 1, length, 0, 0, 0)
    return 0


def path_create_directory(vm: Vm, fd: int, address: int, size: int) -> int:
    path = _path(vm, fd, address, size)
    return _numbered(lambda: vm.files.mkdir(path))


def path_remove_directory(vm: Vm, fd: int, address: int, size: int) -> int:
    path = _path(vm, fd, address, size)
    return _numbered(lambda: vm.files.rmdir(path))


def path_unlink_file(vm: Vm, fd: int, address: int, size: int) -> int:
    path = _path(vm, fd, address, size)
    return _numbered(lambda: vm.files.unlink(path))


def path_rename(
    vm: Vm, old_fd: int, old: int, old_size: int, new_fd: int, new: int, new_size: int
) -> int:
    old_path = _path(vm, old_fd, old, old_size)
    new_path = _path(vm, new_fd, new, new_size)
    return _numbered(lambda: vm.files.rename(old_path, new_path))


def path_readlink(vm: Vm, *_arguments: int) -> int:
    return errno.EINVAL  # littlefs has no links


def proc_exit(_vm: Vm, code: int) -> None:
    raise GuestExit(code)


def sched_yield(_vm: Vm) -> int:
    return 0


def _numbered(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


class _Random:
    is_directory = False
    window = b""
    position = 0

    def read(self, size: int) -> bytes:
        return os.urandom(size)

    def write(self, data: bytes) -> int:
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "not seekable")

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass

    def entries(self) -> list[tuple[str, bool]]:
        return []


# name -> (function, parameters as i = i32 and I = i64, has a result)
WASI_FUNCTIONS: dict[str, tuple[Callable[..., int | None], str, bool]] = {
    "args_get": (args_get, "ii", True),
    "args_sizes_get": (args_sizes_get, "ii", True),
    "environ_get": (environ_get, "ii", True),
    "environ_sizes_get": (environ_sizes_get, "ii", True),
    "clock_time_get": (clock_time_get, "iIi", True),
    "fd_close": (fd_close, "i", True),
    "fd_fdstat_get": (fd_fdstat_get, "ii", True),
    "fd_prestat_get": (fd_prestat_get, "ii", True),
    "fd_prestat_dir_name": (fd_prestat_dir_name, "iii", True),
    "fd_read": (fd_read, "iiii", True),
    "fd_readdir": (fd_readdir, "iiiIi", True),
    "fd_seek": (fd_seek, "iIii", True),
    "fd_sync": (fd_sync, "i", True),
    "fd_write": (fd_write, "iiii", True),
    "path_create_directory": (path_create_directory, "iii", True),
    "path_filestat_get": (path_filestat_get, "iiiii", True),
    "path_open": (path_open, "iiiiiIIii", True),
    "path_readlink": (path_readlink, "iiiiii", True),
    "path_remove_directory": (path_remove_directory, "iii", True),
    "path_rename": (path_rename, "iiiiii", True),
    "path_unlink_file": (path_unlink_file, "iii", True),
    "poll_oneoff": (poll_oneoff, "iiii", True),
    "proc_exit": (proc_exit, "i", False),
    "sched_yield": (sched_yield, "", True),
}
