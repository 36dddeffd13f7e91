"""The file system, as the few calls vecdb makes of it: the only module of the engine that makes file syscalls.

``FileSystem`` is injected from the top, so that a test can put one in its place that fails, kills the process or
forgets what was not synced. Its methods raise ``OSError`` as the system does; ``translated`` turns that into an error
of vecdb.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from vecdb.errors import Corruption, FailedPrecondition, ResourceExhausted, Unavailable, VecdbError

Buffer: TypeAlias = bytes | bytearray | memoryview
Action: TypeAlias = Literal["read", "write"]

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700

_BUFFERS_MAX: Final = 1_024
"""``pwritev`` takes at most this many buffers (IOV_MAX on Linux)."""

_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_MADV_WILLNEED: Final = 3
_MADV_DONTNEED: Final = 4
_MADV_POPULATE_READ: Final = 22
"""Since Linux 5.14. What cannot be read is an error then, and no signal."""

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
_PROCESS_PAGES: Final = Path("/proc/self/statm")
_PROCESS_MAPPINGS: Final = Path("/proc/self/smaps")
_MAPPING: Final = re.compile(rb"^([0-9a-f]+)-[0-9a-f]+ .*\n(?:[A-Z].*\n){0,6}?Rss: +(\d+) kB$", re.MULTILINE)

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_EXHAUSTED: Final = frozenset({errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class DiskFull(ResourceExhausted):
    """There is no disk left, or no quota: the one want that giving up the reserve helps against."""


class FileSystem:
    """The real file system. Stateless; one object may serve any number of threads.

    The write-class calls, which a fault may be injected into, are ``create``, ``write``, ``fsync``, ``fdatasync``,
    ``fsync_directory``, ``allocate``, ``extend``, ``truncate``, ``rename``, ``unlink``, ``make_directory``,
    ``remove_directory`` and the hooks ``committing`` and ``committed``, which stand for the writes that LMDB makes.
    """

    def create(self, path: Path) -> int:
        """Make a new, empty file and open it for writing; a descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, FILE_MODE)

    def open_lock(self, path: Path) -> int:
        """Open the lock file for reading and writing, made if missing; a descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)

    def open_read(self, path: Path) -> int:
        """Open an existing file for reading; a descriptor."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, fd: int) -> None:
        """Give a descriptor back."""
        os.close(fd)

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write the buffers one after the other from ``offset`` on; the bytes written, which may be fewer."""
        return os.pwritev(fd, buffers, offset)

    def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; the bytes read, which may be fewer, 0 at the end of the file."""
        return os.preadv(fd, (buffer,), offset)

    def forget_cached(self, fd: int) -> None:
        """Drop what the system holds of a file in memory and need not write, so that reads come from the device."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def fsync(self, fd: int) -> None:
        """Make the content and the attributes of a file durable."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Make the content of a file, and its size, durable."""
        os.fdatasync(fd)

    def fsync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, size_bytes: int) -> None:
        """Reserve disk for the first ``size_bytes`` of a file, which read as zeros until written."""
        os.posix_fallocate(fd, 0, size_bytes)

    def extend(self, path: Path, size_bytes: int) -> None:
        """Reserve disk for the first ``size_bytes`` of the file at ``path``; it keeps what it has."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        finally:
            os.close(fd)

    def patch(self, path: Path, data: bytes, offset: int) -> None:
        """Write ``data`` into the file at ``path``, from ``offset`` on; it keeps the rest."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            write_fully(self, fd, [data], offset)
        finally:
            os.close(fd)

    def truncate(self, fd: int, size_bytes: int) -> None:
        """Cut a file that nobody maps."""
        os.ftruncate(fd, size_bytes)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name in the same file system, replacing a file or an empty directory."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make a directory."""
        path.mkdir(mode=DIRECTORY_MODE)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def committing(self, path: Path) -> None:
        """Called before LMDB commits a transaction to ``path``."""

    def committed(self, path: Path) -> None:
        """Called after LMDB has made a transaction in ``path`` durable."""

    def names(self, path: Path) -> list[tuple[str, bool]]:
        """What is in a directory: (name, whether it is a directory itself), sorted."""
        with os.scandir(path) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)

    def size(self, fd: int) -> int:
        """Bytes of an open file."""
        return os.fstat(fd).st_size

    def size_of(self, path: Path) -> int | None:
        """Bytes of the file at ``path``, or None when there is none."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def allocated_of(self, path: Path) -> int:
        """Bytes of disk that the file at ``path`` takes, 0 when there is none."""
        try:
            return 512 * path.stat().st_blocks
        except FileNotFoundError:
            return 0

    def free_bytes(self, path: Path) -> int:
        """Bytes that are free on the disk of the directory ``path``."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def absolute(self, path: Path) -> Path:
        """The path from the root; what it leads to need not exist."""
        return path.absolute()

    def is_directory(self, path: Path) -> bool:
        """Whether ``path`` leads to a directory."""
        try:
            return stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            return False

    def is_file(self, path: Path) -> bool:
        """Whether ``path`` leads to a plain file: no directory, device, pipe or socket."""
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except FileNotFoundError:
            return False

    def resolved(self, path: Path) -> Path:
        """The path from the root without symbolic links; what it leads to need not exist."""
        return path.resolve()

    def identity(self, fd: int) -> tuple[int, int]:
        """(device, inode) of an open file."""
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    def identity_of(self, path: Path) -> tuple[int, int]:
        """(device, inode) that ``path`` leads to."""
        status = path.stat()
        return status.st_dev, status.st_ino

    def map(self, fd: int, size_bytes: int) -> memoryview:
        """Map a file, read-only and shared. The mapping lasts as long as any view of it and holds no descriptor.

        ``mmap.mmap`` would keep a duplicate of the descriptor for as long as the mapping lasts.
        """
        if size_bytes == 0:
            return memoryview(b"")
        address = _libc.mmap(None, size_bytes, _PROT_READ, _MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        pages = (ctypes.c_ubyte * size_bytes).from_address(address)
        weakref.finalize(pages, _libc.munmap, address, size_bytes).atexit = False
        return memoryview(pages).cast("B").toreadonly()

    def populate(self, mapping: memoryview) -> None:
        """Read a whole mapping into the memory of this process, unless it is there."""
        if not len(mapping):
            return
        try:
            _advise(mapping, _MADV_POPULATE_READ)
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise OSError(errno.EIO, "a mapped page cannot be read") from error
            if error.errno != errno.EINVAL:
                raise
            # An older system: have it read ahead, then touch every page.
            _advise(mapping, _MADV_WILLNEED)
            bytes(mapping[::_PAGE_BYTES])

    def release(self, mapping: memoryview) -> None:
        """Give back the memory that a mapping takes in this process. It stays readable: pages come back when used."""
        if len(mapping):
            _advise(mapping, _MADV_DONTNEED)

    def open_process_pages(self) -> int:
        """Open what ``mapped_bytes`` reads; a descriptor."""
        return os.open(_PROCESS_PAGES, os.O_RDONLY | os.O_CLOEXEC)

    def mapped_bytes(self, fd: int) -> int:
        """Bytes of mapped files in the memory of the process that opened ``fd``, of all kinds: a few microseconds.

        With many processors some hundred kilobytes may not be counted yet.
        """
        shared_pages = os.pread(fd, 256, 0).split()[2]
        return int(shared_pages) * _PAGE_BYTES

    def mapped_bytes_by_address(self) -> Mapping[int, int]:
        """Bytes in the memory of this process of each of its mappings, by where it begins: some milliseconds."""
        found = _MAPPING.findall(_content(_PROCESS_MAPPINGS))
        return {int(address, 16): 1024 * int(kilobytes) for address, kilobytes in found}

    def lock(self, fd: int) -> bool:
        """Take the exclusive ``flock`` of an open file, at once or not at all."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        """Give the ``flock`` back for every process that shares the descriptor."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    def anonymous(self, data: Buffer) -> int:
        """Put ``data`` into a file that has no name and lives in memory; a descriptor."""
        fd = os.memfd_create("vecdb", os.MFD_CLOEXEC)
        written = 0
        with memoryview(data) as view:
            while written < len(view):
                written += os.pwrite(fd, view[written:], written)
        return fd


def address_of(mapping: memoryview) -> int:
    """Where a mapping begins."""
    # Only here: the processes that check LMDB files import this module too, and start in half the time without it.
    import numpy as np

    return int(np.frombuffer(mapping, np.uint8).ctypes.data)


def _advise(mapping: memoryview, advice: int) -> None:
    """Tell the system how a whole mapping is going to be used."""
    address = address_of(mapping)
    # Beside a mapping, anywhere else the same advice may destroy what is there.
    assert address % _PAGE_BYTES == 0, "not a mapping"
    if _libc.madvise(address, len(mapping), advice):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _content(path: Path) -> bytes:
    """All that a file of the system says, which has no size."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def write_fully(fs: FileSystem, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
    """Write all buffers from ``offset`` on, however many calls the system needs for it.

    Raises
    ------
    OSError
        As the system does; some of the bytes may have been written.
    """
    pending = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
    first = 0
    while first < len(pending):
        try:
            written = fs.write(fd, pending[first : first + _BUFFERS_MAX], offset)
        except InterruptedError:
            continue
        if written <= 0:
            raise OSError(errno.EIO, "a write made no progress")
        offset += written
        while first < len(pending) and written >= len(pending[first]):
            written -= len(pending[first])
            first += 1
        if written:
            pending[first] = pending[first][written:]


def read_up_to(fs: FileSystem, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset`` on as far as the file reaches; the number of bytes read."""
    filled = 0
    with memoryview(buffer) as view:
        while filled < len(view):
            try:
                count = fs.read(fd, view[filled:], offset + filled)
            except InterruptedError:
                continue
            if count == 0:
                break
            filled += count
    return filled


def translated(error: OSError, path: Path, action: Action) -> VecdbError:
    """The error of vecdb that says what the caller of a failed system call can do.

    Out of disk or quota: DiskFull. Out of descriptors or memory: ResourceExhausted. A missing file or a failed read:
    Corruption. No right: FailedPrecondition. Any other failure, a failed sync above all: Unavailable.
    """
    reason = error.strerror or type(error).__name__
    if error.errno in _DISK_FULL:
        return DiskFull(f"cannot {action} {path}: {reason}", field=str(path), value=reason)
    if error.errno in _EXHAUSTED:
        return ResourceExhausted(f"cannot {action} {path}: {reason}", field=str(path), value=reason)
    if error.errno in _REFUSED:
        return FailedPrecondition(f"cannot {action} {path}: {reason}", field=str(path), value=reason)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return Corruption(f"{path} is missing: {reason}", field=str(path), value=reason)
    if action == "read" and error.errno == errno.EIO:
        return Corruption(f"cannot read {path}: {reason}", field=str(path), value=reason)
    return Unavailable(f"cannot {action} {path}: {reason}", field=str(path), value=reason)


@contextlib.contextmanager
def translating(path: Path, action: Action) -> Iterator[None]:
    """Turn an ``OSError`` of the block into the error of vecdb that ``translated`` gives."""
    try:
        yield
    except OSError as error:
        raise translated(error, path, action) from error
