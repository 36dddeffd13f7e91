"""Merges segments: the rows that are to be kept, in the order of their segments, as the files of one new segment.

Nothing is changed but the place of a row: it keeps its id, seq, payload and vectors, bit by bit. Codes are trained
anew. What is as large as the vectors or payloads passes through memory in pieces; a few dozen bytes a row stay there.
Sources are verified whole before they are copied, so that damage never gets a valid checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema, VectorField
from vecdb.segment.journal import NO_DELETES, Deletes, deletes_of
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.segment.writer import SegmentWriter
from vecdb.storage.array_file import ArraySource, ArrayStream
from vecdb.types import AnyArray, I64Array, U64Array

_PIECE_BYTES = 1 << 20
"""Copied at once: little, so that a search never waits long for the interpreter."""

_COPIED = frozenset({Role.IDS, Role.SEQS, Role.PAYLOAD, Role.VECTORS, Role.JOURNAL})


@dataclass(frozen=True, slots=True)
class MergeSource:
    """One segment to merge.

    Attributes
    ----------
    rows
        (n,) int64, ascending: what is kept of it.
    """

    reader: SegmentReader
    rows: I64Array


@dataclass(frozen=True, slots=True)
class Merge:
    """What is merged.

    Attributes
    ----------
    sources
        In the order in which their rows follow each other.
    deletes
        What the new segment tells of deletes, from ``kept_deletes``.
    requests
        Encoded requests that are still to be remembered.
    """

    sources: Sequence[MergeSource]
    deletes: Deletes
    requests: Sequence[bytes]

    @property
    def rows(self) -> int:
        """Rows of the new segment."""
        return sum(source.rows.shape[0] for source in self.sources)


def kept_deletes(sources: Iterable[SegmentReader], others: Sequence[SegmentReader], hash_key: bytes) -> Deletes:
    """The deletes in the journals of ``sources`` that a rebuild from segments would miss.

    One is kept while some other segment holds an older row of its id, dead by now: without the delete it would come
    back. Rows that are written later are newer than the delete, so nobody else has to be asked.
    """
    deletes = all_deletes(sources)
    if not deletes.keys:
        return NO_DELETES
    hashes = deletes.hashes(hash_key)
    needed = np.zeros(len(deletes.keys), np.bool_)
    for other in others:
        rows = other.keys.locate(deletes.keys, hashes)
        at = np.flatnonzero(rows >= 0)
        if not at.shape[0]:
            continue
        needed[at] |= other.seqs[rows[at]] < deletes.seqs[at]
    return deletes.at(np.flatnonzero(needed))


def all_deletes(sources: Iterable[SegmentReader]) -> Deletes:
    """The deletes in the journals of ``sources``, of each id the last."""
    found = [deletes_of(source) for source in sources]
    return Deletes(
        tuple(key for each in found for key in each.keys),
        np.concatenate([NO_DELETES.seqs, *(each.seqs for each in found)]),
    ).newest()


def write_merged(
    writer: SegmentWriter, merge: Merge, schema: CollectionSchema, kernels: Kernels, go_on: Callable[[], None]
) -> SegmentEntry:
    """Write the files of the new segment, graphs excepted; what the manifest is to say of it.

    Parameters
    ----------
    go_on
        Called between pieces; whatever it raises ends the merge.

    Raises
    ------
    Corruption
        A source is damaged. What was written is the caller's to abandon, here as after the other errors.
    ResourceExhausted, Unavailable
        The files cannot be written.
    """
    for source in merge.sources:
        for file in source.reader.entry.files:
            if file.role in _COPIED:
                go_on()
                source.reader.files.array_file(file.role, file.field).verify()
    if merge.rows:
        sources = [source for source in merge.sources if source.rows.shape[0]]
        writer.write(Role.IDS, {**_id_index(sources), **_packed(sources, Role.IDS, "key_offsets", "keys", go_on)})
        writer.write(Role.SEQS, {"seqs": np.concatenate([each.reader.seqs[each.rows] for each in sources])})
        writer.write(Role.PAYLOAD, _packed(sources, Role.PAYLOAD, "offsets", "bytes", go_on))
        for declared in schema.vectors:
            written = writer.write(Role.VECTORS, _vectors(sources, declared, go_on), declared.name)
            _release(merge.sources)
            writer.write_codes(declared, writer.read_back(written).arrays["vectors"], kernels, go_on)
    writer.write_journal(merge.deletes, merge.requests)
    _release(merge.sources)
    entries = [source.reader.entry for source in merge.sources]
    return writer.entry(merge.rows, min(each.seq_first for each in entries), max(each.seq_last for each in entries))


def _release(sources: Iterable[MergeSource]) -> None:
    """Give back the pages of what was copied, and is hardly read again: what is made of it needs the memory more."""
    for source in sources:
        for file in source.reader.entry.files:
            if file.role in _COPIED:
                source.reader.files.array_file(file.role, file.field).release()


def _id_index(sources: Sequence[MergeSource]) -> dict[str, AnyArray]:
    """The ascending hashes of the kept rows and the row of each."""
    hashes: list[U64Array] = []
    for source in sources:
        by_row = np.empty(source.reader.rows, np.uint64)
        by_row[source.reader.keys.hash_rows] = source.reader.keys.hashes
        hashes.append(by_row[source.rows])
    joined = np.concatenate(hashes)
    order = np.argsort(joined, kind="stable")
    return {"hashes": joined[order], "hash_rows": order.astype(np.uint32)}


def _packed(
    sources: Sequence[MergeSource], role: Role, offsets_name: str, bytes_name: str, go_on: Callable[[], None]
) -> dict[str, ArraySource]:
    """Items of any length, one a row: their offsets, and their bytes as a stream."""
    starts: list[I64Array] = []
    lengths: list[I64Array] = []
    for source in sources:
        offsets = source.reader.files.array(role, offsets_name).astype(np.int64)
        starts.append(offsets[source.rows])
        lengths.append(offsets[source.rows + 1] - starts[-1])
    ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths])).astype(np.uint64)

    def chunks() -> Iterator[AnyArray]:
        for source, first, length in zip(sources, starts, lengths, strict=True):
            data = source.reader.files.array(role, bytes_name)
            for piece in _pieces(length):
                go_on()
                yield _gather(data, first[piece], length[piece])

    return {offsets_name: ends, bytes_name: ArrayStream(np.dtype(np.uint8), (int(ends[-1]),), chunks())}


def _pieces(lengths: I64Array) -> Iterator[slice]:
    """Runs of items that are together at most a piece long; a longer item is a run of its own."""
    ends = np.cumsum(lengths)
    at, done = 0, 0
    while at < lengths.shape[0]:
        end = max(at + 1, int(np.searchsorted(ends, done + _PIECE_BYTES, "right")))
        yield slice(at, end)
        at, done = end, int(ends[end - 1])


def _gather(data: AnyArray, starts: I64Array, lengths: I64Array) -> AnyArray:
    """The items that begin at ``starts``, one after the other."""
    total = int(lengths.sum())
    first = int(starts[0])
    if int(starts[-1] + lengths[-1]) - first == total:
        contiguous: AnyArray = data[first : first + total]
        return contiguous
    begins = np.cumsum(lengths) - lengths
    return data[np.repeat(starts - begins, lengths) + np.arange(total)]


def kept_slots(source: MergeSource, name: str) -> I64Array:
    """The slots of a field, ascending, whose rows are kept of a source: those of the new segment, in this order."""
    slot_rows = source.reader.field(name).vectors.slot_rows
    if slot_rows is None:
        return source.rows
    kept = np.zeros(source.reader.rows, np.bool_)
    kept[source.rows] = True
    return np.flatnonzero(kept[slot_rows])


def _vectors(
    sources: Sequence[MergeSource], declared: VectorField, go_on: Callable[[], None]
) -> Mapping[str, ArraySource]:
    """The vectors of the kept rows that have one, as a stream; their norms and rows where there are such."""
    slots: list[I64Array] = []
    slot_rows: list[I64Array] = []
    base = 0
    fields = [source.reader.field(declared.name).vectors for source in sources]
    for source, field in zip(sources, fields, strict=True):
        count = source.rows.shape[0]
        slots.append(kept_slots(source, declared.name))
        if field.slot_rows is None:
            slot_rows.append(np.arange(base, base + count))
        else:
            slot_rows.append(base + np.searchsorted(source.rows, field.slot_rows[slots[-1]]))
        base += count
    piece_slots = max(1, _PIECE_BYTES // (4 * declared.dim))

    def chunks() -> Iterator[AnyArray]:
        for field, kept in zip(fields, slots, strict=True):
            for at in range(0, kept.shape[0], piece_slots):
                go_on()
                yield field.vectors[kept[at : at + piece_slots]]

    total = sum(kept.shape[0] for kept in slots)
    arrays: dict[str, ArraySource] = {
        "vectors": ArrayStream(np.dtype(np.float32), (total, declared.dim), chunks()),
    }
    norms = [field.norms[kept] for field, kept in zip(fields, slots, strict=True) if field.norms is not None]
    if norms:
        arrays["norms"] = np.concatenate(norms)
    if total < base:
        arrays["slot_rows"] = np.concatenate(slot_rows).astype(np.uint32)
    return arrays
