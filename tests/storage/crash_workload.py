"""A small database made of a log, array files, an environment and a mirror, and a check of what a crash left of it.

Run as a process of its own it writes until it is killed at the n-th write-class call, and prints each acknowledgement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.storage.faults import KillingFileSystem
from vecdb.storage.array_file import ArrayFile, FileRef, write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.lock import DirectoryLock
from vecdb.storage.mirror import read_mirror, write_mirror
from vecdb.storage.wal import Log

BATCHES = 9
FLUSH_EVERY = 3


def content(seq: int) -> bytes:
    return b"batch %d;" % seq * 20


def refs(store: LmdbStore) -> list[FileRef]:
    found = []
    for _key, value in store.items(b"file/"):
        name, size, checksum, file_id = value.decode().split()
        found.append(FileRef(name, int(size), int(checksum), int(file_id)))
    return found


def opened(root: MmapDirectory) -> tuple[LmdbStore, Log, dict[int, bytes]]:
    """The database, and every batch in it."""
    mirror = read_mirror(root, "mirror")
    store = LmdbStore.open(root, expected=mirror.fingerprint if mirror else None)
    flushed = int(store.get(b"flushed") or 0)
    batches = {}
    for ref in refs(store):
        file = ArrayFile.open(root, ref, role="batches")
        file.verify()
        for seq, row in zip(file.arrays["seqs"], file.arrays["bytes"], strict=True):
            batches[int(seq)] = row.tobytes()
    log = Log(root.child("log", create=True), file_bytes_first=2048, file_bytes_max=4096)
    batches |= dict(log.replay(flushed))
    return store, log, batches


def flush(root: MmapDirectory, store: LmdbStore, log: Log, seqs: range) -> None:
    rows = np.array([list(content(seq)) for seq in seqs], np.uint8)
    name = f"seg{seqs[-1]}"
    ref = write_array_file(root, name, "batches", {"seqs": np.array(seqs, np.uint64), "bytes": rows})
    root.sync()
    store.commit(
        {
            b"file/%06d" % seqs[-1]: f"{ref.name} {ref.size_bytes} {ref.checksum} {ref.file_id}".encode(),
            b"flushed": b"%d" % seqs[-1],
        }
    )
    write_mirror(root, "mirror", b"", store.fingerprint())
    log.rotate()
    log.trim(seqs[-1])


def run(root: Path, fs: FileSystem, acknowledge: Callable[[int], None]) -> None:
    """Write ``BATCHES`` batches in two sessions, flushing now and then."""
    directory = MmapDirectory.open(root, fs, create=True)
    for session in range(2):
        lock = DirectoryLock.acquire(directory)
        directory.remove_leftovers()
        store, log, batches = opened(directory)
        assert sorted(batches) == list(range(1, len(batches) + 1))
        flushed = int(store.get(b"flushed") or 0)
        for seq in range(len(batches) + 1, (session + 1) * BATCHES // 2 + 1):
            # Batches of ten digits or more would differ in length, which a row of an array cannot.
            log.append([(seq, content(seq))])
            log.sync()
            acknowledge(seq)
            if seq % FLUSH_EVERY == 0:
                flush(directory, store, log, range(flushed + 1, seq + 1))
                flushed = seq
        log.close()
        store.close()
        lock.release()


def main(root: Path, n: int) -> None:
    run(root, KillingFileSystem(n), lambda seq: print(seq, flush=True))
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
