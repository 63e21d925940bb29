"""The board's littlefs (the real one) on its flash, as files of a run and as files for the bench.

Parameters are MicroPython's for the ESP32 (32-byte reads and programs, 128-byte cache, 4 KiB blocks). Only reads
and the cache are larger here, because every fill is a call into Python; what the cache programs is cut into the real
one's pieces again, so that a power cut can fall between any two of them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TypeVar

from littlefs import lfs
from littlefs.errors import LittleFSError

from hardware.virtual_board import errno_esp32 as errno
from hardware.virtual_board.flash import SECTOR_BYTES, PowerCut, region

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware.virtual_board.flash import Flash

_PROGRAM_BYTES = 32
_READ_BYTES = 256  # littlefs goes through the entries of a folder backwards, four bytes at a time
_PIECE_BYTES = 128  # the real cache, and so the longest program and inline file
_CACHE_BYTES = SECTOR_BYTES
_OPEN_CREATE, _OPEN_DIRECTORY, _OPEN_EXCLUSIVE, _OPEN_TRUNCATE = 1, 2, 4, 8
_LFS_READ, _LFS_WRITE = 1, 2
_LFS_CREATE, _LFS_EXCLUSIVE, _LFS_TRUNCATE, _LFS_APPEND = 0x100, 0x200, 0x400, 0x800
_LFS_ERR_IO = -5
# littlefs error -> the node's number (they are Linux numbers where newlib's agree).
_ERRNO = {
    -39: errno.ENOTEMPTY,
    -36: errno.ENAMETOOLONG,
    -84: errno.EIO,  # LFS_ERR_CORRUPT
    -61: errno.EIO,  # LFS_ERR_NOATTR
}
_READ_AHEAD = 4096
_T = TypeVar("_T")


class _FlashContext:
    """littlefs's block device on the `vfs` partition."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash
        self._offset = region("vfs").offset

    def read(self, _config: lfs.LFSConfig, block: int, offset: int, size: int) -> bytearray:
        return bytearray(self._flash.read(self._offset + block * SECTOR_BYTES + offset, size))

    def prog(self, _config: lfs.LFSConfig, block: int, offset: int, data: bytes) -> int:
        start = self._offset + block * SECTOR_BYTES + offset
        for at in range(0, len(data), _PIECE_BYTES):
            if not self._flash.program(start + at, bytes(data[at : at + _PIECE_BYTES])):
                return _LFS_ERR_IO
        return 0

    def erase(self, _config: lfs.LFSConfig, block: int) -> int:
        return 0 if self._flash.erase(self._offset + block * SECTOR_BYTES) else _LFS_ERR_IO

    def sync(self, _config: lfs.LFSConfig) -> int:
        return 0


class FileSystem:
    """A mounted littlefs. Raises OSError with the node's numbers, PowerCut when the flash was cut."""

    def __init__(self, flash: Flash, *, fresh: bool = False) -> None:
        """Mount; with `fresh` format first. Raises OSError when there is nothing to mount."""
        self._flash = flash
        self._config = lfs.LFSConfig(
            context=_FlashContext(flash),
            block_size=SECTOR_BYTES,
            block_count=region("vfs").size // SECTOR_BYTES,
            read_size=_READ_BYTES,
            prog_size=_PROGRAM_BYTES,
            cache_size=_CACHE_BYTES,
            lookahead_size=32,
            block_cycles=100,
            inline_max=_PIECE_BYTES,
        )
        self._fs = lfs.LFSFilesystem()
        # Imports ask for many names that are not there. What a folder holds is read once and forgotten
        # when something in it changes; only this object writes while it is mounted.
        self._folders: dict[str, dict[str, tuple[bool, int]] | OSError] = {}
        if fresh:
            self._try(lambda: lfs.format(self._fs, self._config))
        self._try(lambda: lfs.mount(self._fs, self._config))

    # --- what a run needs (wasi.GuestFiles) ---

    def open(
        self, path: str, *, read: bool, write: bool, append: bool, flags: int
    ) -> FlashFile | FlashFolder:
        """Open a file, or a folder with the directory flag or when `path` is one."""
        if flags & _OPEN_DIRECTORY or (not write and self._is_directory(path)):
            found = self._folder(path)
            return FlashFolder([(name, is_folder) for name, (is_folder, _) in found.items()])
        mode = (_LFS_READ if read else 0) | (_LFS_WRITE if write else 0)
        mode |= _LFS_APPEND if append else 0
        mode |= _LFS_CREATE if flags & _OPEN_CREATE else 0
        mode |= _LFS_EXCLUSIVE if flags & _OPEN_EXCLUSIVE else 0
        mode |= _LFS_TRUNCATE if flags & _OPEN_TRUNCATE else 0
        if write:
            self.changed(path)
        handle = self._try(lambda: lfs.file_open(self._fs, path, lfs.LFSFileFlag(mode), "utf-8"))
        return FlashFile(self, handle, path=path, buffered=not write)

    def stat(self, path: str) -> tuple[bool, int]:
        """(is_directory, size in bytes)."""
        if path == "/":
            return True, 0
        above, _, name = path.rpartition("/")
        try:
            found = self._folder(above or "/").get(name)
        except OSError as error:
            raise OSError(errno.ENOENT, path) from error
        if found is None:
            raise OSError(errno.ENOENT, path)
        return found

    def changed(self, path: str) -> None:
        """Something about `path` is about to change on flash."""
        self._folders.pop(path.rpartition("/")[0] or "/", None)
        self._folders.pop(path, None)

    def is_file(self, path: str) -> bool:
        """Whether there is a file of that name."""
        return self._exists(path) and not self._is_directory(path)

    def mkdir(self, path: str) -> None:
        """Make one folder."""
        self._folders.clear()
        self._try(lambda: lfs.mkdir(self._fs, path, "utf-8"))

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        self.unlink(path)

    def unlink(self, path: str) -> None:
        """Remove a file (or, as littlefs does, an empty folder)."""
        self.changed(path)
        self._try(lambda: lfs.remove(self._fs, path, "utf-8"))

    def rename(self, old: str, new: str) -> None:
        """Rename in one atomic step, replacing what was there."""
        self._folders.clear()  # a folder's new name changes every path below it
        self._try(lambda: lfs.rename(self._fs, old, new, "utf-8"))

    def _folder(self, path: str) -> dict[str, tuple[bool, int]]:
        """What a folder holds: name -> (is_directory, size)."""
        known = self._folders.get(path)
        if known is None:
            try:
                known = self._try(lambda: self._read_folder(path))
            except OSError as error:
                known = error
            self._folders[path] = known
        if isinstance(known, OSError):
            raise known
        return known

    def _read_folder(self, path: str) -> dict[str, tuple[bool, int]]:
        folder = lfs.dir_open(self._fs, path, "utf-8")
        found = {}
        while (entry := lfs.dir_read(self._fs, folder, "utf-8")) is not None:
            if entry.name not in (".", ".."):
                found[entry.name] = (entry.type == lfs.LFSStat.TYPE_DIR, entry.size)
        lfs.dir_close(self._fs, folder)
        return found

    def blocks(self) -> tuple[int, int, int]:
        """(block size in bytes, blocks in all, blocks free)."""
        used = self._try(lambda: lfs.fs_size(self._fs))
        return SECTOR_BYTES, self._config.block_count, self._config.block_count - used

    # --- what the bench needs ---

    def read_file(self, path: str) -> bytes:
        """A whole file."""
        file = self.open(path, read=True, write=False, append=False, flags=0)
        if file.is_directory:
            raise OSError(errno.EISDIR, f"{path} is a folder")
        data = b""
        while part := file.read(1 << 16):
            data += part
        file.close()
        return data

    def write_file(self, path: str, data: bytes) -> None:
        """Write a whole file, with the folders above it."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            folder = "/" + "/".join(parts[:depth])
            if not self._exists(folder):
                self.mkdir(folder)
        flags = _OPEN_CREATE | _OPEN_TRUNCATE
        file = self.open(path, read=False, write=True, append=False, flags=flags)
        file.write(data)
        file.close()

    def walk(self, path: str = "/") -> list[tuple[str, int]]:
        """Every file below `path` as (path, size)."""
        out = []
        for entry, (is_directory, size) in self._folder(path).items():
            name = f"{path.rstrip('/')}/{entry}"
            if is_directory:
                out += self.walk(name)
            else:
                out.append((name, size))
        return sorted(out)

    def _exists(self, path: str) -> bool:
        try:
            self.stat(path)
        except OSError:
            return False
        return True

    def _is_directory(self, path: str) -> bool:
        try:
            return self.stat(path)[0]
        except OSError:
            return False

    def _try(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except LittleFSError as error:
            if self._flash.is_cut:
                raise PowerCut from None
            number = _ERRNO.get(error.code, -error.code)
            raise OSError(number, str(error)) from None


class FlashFile:
    """An open littlefs file. Read-only ones read ahead: the guest asks for a few bytes at a time."""

    is_directory = False

    def __init__(
        self, file_system: FileSystem, handle: lfs.LFSFile, *, path: str, buffered: bool
    ) -> None:
        self._owner = file_system
        self._path = path
        self._handle = handle
        self._buffered = buffered
        self.window = b""
        self.position = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; shorter only at the end."""
        if not self._buffered:
            return self._read(size)
        if len(self.window) - self.position < size:
            self.window = self.window[self.position :] + self._read(max(size, _READ_AHEAD))
            self.position = 0
        part = self.window[self.position : self.position + size]
        self.position += len(part)
        return part

    def write(self, data: bytes) -> int:
        """How many bytes were taken."""
        fs = self._owner
        return fs._try(lambda: lfs.file_write(fs._fs, self._handle, data))

    def seek(self, offset: int, whence: int) -> int:
        """The new position."""
        fs = self._owner
        if whence == io.SEEK_CUR:
            offset -= len(self.window) - self.position
        self.window, self.position = b"", 0
        return fs._try(lambda: lfs.file_seek(fs._fs, self._handle, offset, whence))

    def sync(self) -> None:
        """On return the content survives a power cut."""
        fs = self._owner
        fs.changed(self._path)
        fs._try(lambda: lfs.file_sync(fs._fs, self._handle))

    def close(self) -> None:
        """Sync and close."""
        fs = self._owner
        if not self._buffered:
            fs.changed(self._path)
        fs._try(lambda: lfs.file_close(fs._fs, self._handle))

    def entries(self) -> list[tuple[str, bool]]:
        """A file has none."""
        raise OSError(errno.ENOTDIR, "not a folder")

    def _read(self, size: int) -> bytes:
        fs = self._owner
        return fs._try(lambda: lfs.file_read(fs._fs, self._handle, size))


class FlashFolder:
    """A folder as it was when opened."""

    is_directory = True
    window = b""
    position = 0

    def __init__(self, entries: list[tuple[str, bool]]) -> None:
        self._entries = entries

    def entries(self) -> list[tuple[str, bool]]:
        """(name, is_directory)."""
        return self._entries

    def close(self) -> None:
        """Nothing is held."""

    def sync(self) -> None:
        """Nothing to do."""

    def read(self, size: int) -> bytes:
        """Folders cannot be read."""
        raise OSError(errno.EISDIR, "is a folder")

    def write(self, data: bytes) -> int:
        """Folders cannot be written."""
        raise OSError(errno.EISDIR, "is a folder")

    def seek(self, offset: int, whence: int) -> int:
        """Folders have no position."""
        raise OSError(errno.EISDIR, "is a folder")
