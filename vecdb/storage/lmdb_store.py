"""The small, mutable part of a database: one LMDB environment, of which every value and the whole are checksummed.

LMDB checks no page, and a damaged file can kill the process that maps it. So no environment is opened before its bytes
are the ones last seen, by their digest, or a child process has read every value and found all of them there. There is
no ``lock.mdb``: the directory's lock keeps other writers out, one mutex orders the threads of this process, and readers
in other processes work on a private copy. No transaction outlives a call. Format: ``docs/formats/lmdb.md``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import lmdb

from vecdb.errors import (
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    VecdbError,
)
from vecdb.storage.checksum import checksum64, random_id
from vecdb.storage.directory import TEMPORARY_SUFFIX, MmapDirectory
from vecdb.storage.environment import (
    CHECKSUM,
    DATA_NAME,
    TAG,
    TAG_AT,
    Fingerprint,
    Root,
    consistent_copy,
    present_digest,
    stored_checksum,
)
from vecdb.storage.io import FILE_MODE, DiskFull, translating
from vecdb.storage.lmdb_check import path_of_descriptor, verified_root, verified_root_of_copy
from vecdb.storage.lmdb_disk import committed_bytes, environment_bytes, short_of_disk
from vecdb.storage.lmdb_transaction import change, read_root, read_stored, scan

MAP_BYTES_DEFAULT: Final = 64 << 20
KEY_BYTES_MAX: Final = 500

Result = TypeVar("Result")


class LmdbStore:
    """A handle of an environment; all handles of one directory in one process share the environment."""

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment
        self._open = True

    @classmethod
    def open(
        cls, directory: MmapDirectory, *, expected: Fingerprint | None = None, map_bytes: int = MAP_BYTES_DEFAULT
    ) -> LmdbStore:
        """Open the environment in a directory, made if it is missing and nothing is expected.

        Parameters
        ----------
        directory
            Where ``data.mdb`` is. If it is read-only, the handle works on a private copy of the present state.
        expected
            What the mirror says. Read the mirror first: the environment may be newer by then, but not older.
        map_bytes
            Address space to begin with; it grows when it is full.

        Raises
        ------
        Corruption
            The file is missing, damaged, older than expected, or of another environment.
        NotFound
            There is none, and the directory is read-only.
        FailedPrecondition
            It was written in a later format.
        """
        if directory.read_only:
            return cls(_open_copy(directory, expected, map_bytes))
        key = _registry_key(directory)
        with _registry_lock:
            opening = _opening.setdefault(key, threading.Lock())
        with opening:
            with _registry_lock:
                environment = _registry.get(key)
            if environment is None:
                environment = _open_owned(directory, expected, map_bytes)
                environment.registry_key = key
            elif expected is not None:
                environment.root.require_at_least(expected, str(environment.path))
            with _registry_lock:
                _registry[key] = environment
                environment.handles += 1
        return cls(environment)

    @property
    def generation(self) -> int:
        """How many transactions were committed."""
        return self._environment.root.generation

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None.

        Raises
        ------
        Corruption
            The value is not what was stored under this key.
        """
        return self._usable().get(key)

    def items(self, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """All (key, value) whose key begins with ``prefix``, in the order of keys; raises as ``get`` does."""
        return self._usable().items(prefix)

    def commit(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> int:
        """Delete, then put, in one durable transaction; the new generation. Deleting a missing key is no error.

        Raises
        ------
        DiskFull, ResourceExhausted
            The disk is full, or memory is; nothing changed, and the call may be repeated.
        Unavailable
            The device failed; the environment takes no more writes until it is opened again.
        InvalidArgument
            A key is empty, too long or reserved.
        """
        return self._usable().commit(puts, list(deletes))

    def fingerprint(self) -> Fingerprint:
        """The present state; reads the data file through."""
        return self._usable().fingerprint()

    def close(self) -> None:
        """Give the handle back; the last one closes the environment."""
        if self._open:
            self._open = False
            self._environment.give_back()

    def _usable(self) -> _Environment:
        if not self._open:
            raise FailedPrecondition(f"{self._environment.path} is closed", field=str(self._environment.path))
        return self._environment


class _Environment:
    """An open LMDB environment, and the mutex that orders its users."""

    def __init__(self, directory: MmapDirectory, env: lmdb.Environment, expected: Fingerprint | None) -> None:
        self.path = directory.path_of(DATA_NAME)
        self.handles = 0
        self.registry_key: tuple[int, int] | None = None
        self.copy_digest = 0
        self._directory = directory
        self._env = env
        self._poisoned = False
        self._reserved_bytes = 0
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self.root = self._reading(lambda transaction: read_root(transaction, str(self.path)))
        if expected is not None:
            self.root.require_at_least(expected, str(self.path))

    def get(self, key: bytes) -> bytes | None:
        with self._mutex:
            return self._reading(lambda transaction: self._checked(key, read_stored(transaction, key)))

    def items(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        with self._mutex:
            return self._reading(
                lambda transaction: [
                    (key, self._checked(key, stored) or b"") for key, stored in scan(transaction, prefix)
                ]
            )

    def commit(self, puts: Mapping[bytes, bytes], deletes: list[bytes]) -> int:
        for key in (*deletes, *puts):
            if not 0 < len(key) <= KEY_BYTES_MAX or key[0] == 0:
                raise InvalidArgument(
                    "a key is empty, too long or begins with a zero byte",
                    limit=f"{KEY_BYTES_MAX} bytes",
                    value=len(key),
                )
        with self._mutex:
            self._refuse_child()
            if self._directory.read_only:
                raise FailedPrecondition(f"{self.path} is open for reading only", field=str(self.path))
            if self._poisoned:
                raise Unavailable(f"{self.path} failed before: open it again", field=str(self.path))
            # Until its root is known: whatever interrupts it, a signal's exception even, leaves the handle unusable.
            self._poisoned = True
            try:
                self.root = self._commit_growing(puts, deletes)
            except ResourceExhausted:
                self._poisoned = False  # The transaction was given up.
                raise
            self._poisoned = False
            return self.root.generation

    def fingerprint(self) -> Fingerprint:
        with self._mutex:
            self._refuse_child()
            digest = self.copy_digest if self._directory.read_only else present_digest(self._directory)
            return Fingerprint(self.root.environment_id, self.root.generation, digest)

    def give_back(self) -> None:
        if self.registry_key is None:
            self._env.close()
            return
        with _registry_lock:
            self.handles -= 1
            if self.handles == 0:
                _registry.pop(self.registry_key, None)
                with self._mutex:
                    self._env.close()

    def _commit_growing(self, puts: Mapping[bytes, bytes], deletes: list[bytes]) -> Root:
        fs = self._directory.fs
        while True:
            try:
                with translating(self.path, "write"):
                    self._reserve_disk(puts, deletes)
                    fs.committing(self.path)
                with self._env.begin(write=True, buffers=True) as transaction:
                    root = change(transaction, puts, deletes, self.root)
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
                continue
            except (lmdb.Error, VecdbError) as error:
                raise _write_failure(error, self.path) from error
            except MemoryError as error:
                # The transaction was given up.
                raise ResourceExhausted(f"cannot write {self.path}: out of memory", field=str(self.path)) from error
            fs.committed(self.path)
            return root

    def _reserve_disk(self, puts: Mapping[bytes, bytes], deletes: list[bytes]) -> None:
        """See to it that a commit finds its disk."""
        used_pages = self._env.info()["last_pgno"] + 1
        needed_bytes = committed_bytes(puts, deletes, used_pages=used_pages, page_bytes=self._env.stat()["psize"])
        if needed_bytes > self._reserved_bytes and short_of_disk(self._directory):
            self._directory.fs.extend(self.path, needed_bytes)
            self._reserved_bytes = needed_bytes

    def _reading(self, read: Callable[[lmdb.Transaction], Result]) -> Result:
        self._refuse_child()
        try:
            with self._env.begin() as transaction:
                return read(transaction)
        except lmdb.Error as error:
            raise Corruption(f"{self.path} cannot be read: {error}", field=str(self.path)) from error

    def _checked(self, key: bytes, stored: bytes | None) -> bytes | None:
        return None if stored is None else _checked_value(key, stored, self.root.environment_id, str(self.path))

    def _refuse_child(self) -> None:
        if os.getpid() != self._pid:
            raise FailedPrecondition(
                f"{self.path} was opened by process {self._pid} and inherited by its forked child {os.getpid()}",
                field=str(self.path),
            )


_registry: dict[tuple[int, int], _Environment] = {}
_opening: dict[tuple[int, int], threading.Lock] = {}
_registry_lock = threading.Lock()


def write_environment(
    directory: MmapDirectory, values: Mapping[bytes, bytes], *, environment_id: int, generation: int
) -> Fingerprint:
    """Put an environment that holds ``values`` in the place of whatever is there, atomically and durably.

    No handle of it may be open. Crashed before the end, it leaves what was there.

    Raises
    ------
    ResourceExhausted, Unavailable
        It could not be written.
    """
    _replace(directory, Root(environment_id, generation, 0, 0), values, MAP_BYTES_DEFAULT)
    return Fingerprint(environment_id, generation, present_digest(directory))


def _registry_key(directory: MmapDirectory) -> tuple[int, int]:
    with translating(directory.path, "read"):
        return directory.fs.identity_of(directory.path)


def _open_owned(directory: MmapDirectory, expected: Fingerprint | None, map_bytes: int) -> _Environment:
    """Open the environment itself, for the holder of the directory's lock."""
    path = directory.path_of(DATA_NAME)
    if not directory.exists(DATA_NAME):
        if expected is not None:
            raise Corruption(f"{path} is missing", field=str(path))
        _replace(directory, Root(random_id(), 0, 0, 0), {}, map_bytes)
    elif expected is None or present_digest(directory) != expected.digest:
        # The usual reason is a process that ended between a commit and its mirror.
        root = verified_root(path, path, _size(directory))
        if expected is not None:
            root.require_at_least(expected, str(path))
        # Values are proven, but not the list of free pages, by which the next commit could overwrite them.
        _replace(directory, root, _all_items(path, map_bytes), map_bytes)
    return _Environment(directory, _open_lmdb(path, max(map_bytes, 2 * _size(directory))), expected)


def _open_copy(directory: MmapDirectory, expected: Fingerprint | None, map_bytes: int) -> _Environment:
    """Open a copy of the present state that lives in memory and has no name."""
    path = directory.path_of(DATA_NAME)
    if not directory.exists(DATA_NAME):
        if expected is not None:
            raise Corruption(f"{path} is missing", field=str(path))
        raise NotFound(f"{path} does not exist", field=str(path))
    data = consistent_copy(directory)
    digest = checksum64(data)
    if expected is None or digest != expected.digest:
        verified_root_of_copy(directory, data)
    with translating(path, "read"):
        fd = directory.fs.anonymous(data)
    try:
        env = _open_lmdb(path_of_descriptor(fd), max(map_bytes, len(data)), readonly=True)
    finally:
        directory.fs.close(fd)
    environment = _Environment(directory, env, expected)
    environment.copy_digest = digest
    return environment


def _open_lmdb(path: Path, map_bytes: int, *, readonly: bool = False) -> lmdb.Environment:
    try:
        return lmdb.open(
            str(path),
            map_size=map_bytes,
            subdir=False,
            lock=False,
            readonly=readonly,
            create=not readonly,
            mode=FILE_MODE,
        )
    except lmdb.Error as error:
        failure = _write_failure(error, path)
        if isinstance(failure, ResourceExhausted):
            raise failure from error
        raise Corruption(f"{path} cannot be opened: {error}", field=str(path)) from error


def _size(directory: MmapDirectory) -> int:
    with directory.open_reader(DATA_NAME) as reader:
        return reader.size_bytes


def _replace(directory: MmapDirectory, root: Root, values: Mapping[bytes, bytes], map_bytes: int) -> None:
    """Write an environment of its own under a temporary name and put it in place, durably."""
    fs = directory.fs
    path = directory.path_of(DATA_NAME)
    temporary = directory.path_of(DATA_NAME + TEMPORARY_SUFFIX)
    directory.unlink(temporary.name)
    if short_of_disk(directory):
        # Given back at once. LMDB tells of a disk that is full when it makes a file as if the file were damaged.
        with directory.create(DATA_NAME) as probe:
            probe.allocate(environment_bytes(values))
    env = _open_lmdb(temporary, max(map_bytes, 4 * sum(map(len, values.values()))))
    try:
        with translating(temporary, "write"):
            # LMDB has made the first two pages, and never writes this part of them again; the commit makes it durable.
            fs.patch(temporary, TAG.pack(random_id()), TAG_AT)
            fs.committing(temporary)
        # Given the generation before, so that the transaction which fills the new file arrives at the right one.
        with env.begin(write=True, buffers=True) as transaction:
            change(transaction, values, [], Root(root.environment_id, root.generation - 1, 0, 0))
        fs.committed(temporary)
    except lmdb.Error as error:
        raise _write_failure(error, temporary) from error
    finally:
        env.close()
    with translating(path, "write"):
        fs.rename(temporary, path)
    directory.changed()
    directory.sync()


def _checked_value(key: bytes, stored: bytes, environment_id: int, path: str) -> bytes:
    stored_checksum(key, stored, environment_id, path)
    return stored[CHECKSUM.size :]


def _all_items(path: Path, map_bytes: int) -> dict[bytes, bytes]:
    """Every value of an environment that a child process has verified."""
    env = _open_lmdb(path, map_bytes, readonly=True)
    try:
        with env.begin() as transaction:
            root = read_root(transaction, str(path))
            return {
                key: _checked_value(key, stored, root.environment_id, str(path)) for key, stored in scan(transaction)
            }
    finally:
        env.close()


def _write_failure(error: lmdb.Error | VecdbError, path: Path) -> VecdbError:
    if isinstance(error, VecdbError):
        return error
    told = str(error)
    if isinstance(error, lmdb.DiskError) or any(os.strerror(number) in told for number in (errno.ENOSPC, errno.EDQUOT)):
        return DiskFull(f"cannot write {path}: {error}", field=str(path))
    if isinstance(error, lmdb.MemoryError) or os.strerror(errno.EFBIG) in told:
        return ResourceExhausted(f"cannot write {path}: {error}", field=str(path))
    return Unavailable(f"cannot write {path}: {error}", field=str(path))
