"""What one LMDB transaction reads and changes: values, each behind its checksum, and the root record over all of them.

A change and its root record are in one transaction, so that the root record is always that of the values beside it.
Format: ``docs/formats/lmdb.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import lmdb

from vecdb.storage.environment import CHECKSUM, ROOT_KEY, SUM_MODULUS, Root, value_checksum


def read_root(transaction: lmdb.Transaction, path: str) -> Root:
    """The root record of the environment at ``path``; raises as ``Root.decode`` does."""
    return Root.decode(read_stored(transaction, ROOT_KEY), path)


def read_stored(transaction: lmdb.Transaction, key: bytes) -> bytes | None:
    """What is stored under a key: checksum and value."""
    stored = transaction.get(key)
    return None if stored is None else bytes(stored)


def scan(transaction: lmdb.Transaction, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """(key, what is stored) of the keys that begin with ``prefix``, without the root record."""
    cursor = transaction.cursor()
    if cursor.set_range(prefix):
        for found, stored in cursor:
            key = bytes(found)
            if not key.startswith(prefix):
                return
            if key != ROOT_KEY:
                yield key, bytes(stored)


def change(transaction: lmdb.Transaction, puts: Mapping[bytes, bytes], deletes: Sequence[bytes], root: Root) -> Root:
    """Delete, then put, and store the root record, which is then that of the next generation."""
    count, total = root.count, root.checksum_sum
    for key in (*deletes, *puts):
        old = transaction.get(key)
        if old is not None:
            count -= 1
            total -= CHECKSUM.unpack_from(old)[0]
            transaction.delete(key)
    for key, value in puts.items():
        checksum = value_checksum(key, value, root.environment_id)
        count += 1
        total += checksum
        transaction.put(key, CHECKSUM.pack(checksum) + value)
    changed = Root(root.environment_id, root.generation + 1, count, total % SUM_MODULUS)
    transaction.put(ROOT_KEY, changed.encode())
    return changed
