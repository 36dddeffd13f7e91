"""Reads points: by id, and page by page in the order of their hashed ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.engine.matching import allowed_rows, bind
from vecdb.engine.state import CollectionState
from vecdb.engine.view import PartView, SegmentView, View
from vecdb.errors import InvalidArgument
from vecdb.requests import GetRequest, ScrollRequest
from vecdb.results.points import Page, Point
from vecdb.segment.ids import hash_keys, key_of
from vecdb.types import F32Array, I64Array

_CURSOR_TAG_BYTES = 8
_HASH_BYTES = 8


def payload_of(part: PartView, row: int) -> bytes:
    """The payload of a row, verified."""
    return part.reader.payloads[row] if isinstance(part, SegmentView) else part.memtable.payloads[row]


def vectors_of(part: PartView, row: int) -> Mapping[str, F32Array]:
    """The vectors of a row by field name, as they were given to float32 rounding."""
    found: dict[str, F32Array] = {}
    if isinstance(part, SegmentView):
        for name in part.reader.field_names:
            field = part.reader.field(name)
            slot = field.vectors.slot_of(row)
            if slot is not None:
                found[name] = field.original(slot)
        return found
    for name, vectors in part.fields.items():
        slot = vectors.slot_of(row)
        if slot is not None:
            found[name] = vectors.original(slot)
    return found


def _point(state: CollectionState, part: PartView, row: int, request: GetRequest | ScrollRequest) -> Point:
    # A point may lie anywhere in a file, and each brings pages of its surroundings along.
    state.resources.budget.settle()
    return Point(
        part.id_at(row),
        payload_of(part, row) if request.with_payloads else None,
        vectors_of(part, row) if request.with_vectors else {},
    )


def run_get(state: CollectionState, view: View, request: GetRequest) -> list[Point]:
    """The points with these ids that are live, in the order asked for."""
    keys = [key_of(each) for each in request.ids]
    parts, rows = view.locate(request.ids, keys, hash_keys(keys, state.manifest.hash_key))
    all_parts = view.parts
    return [
        _point(state, all_parts[part], row, request)
        for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
        if part >= 0
    ]


def run_scroll(state: CollectionState, view: View, request: ScrollRequest) -> Page:
    """One page in order of (hash of the id, id).

    The cursor is the last point's place in that order, so it needs nothing kept and survives every change.
    """
    where = bind(request.where)
    after = _decode_cursor(state, request.cursor)
    found: list[tuple[int, bytes, PartView, int]] = []
    for part in view.parts:
        if part.rows:
            found.extend(_next_rows(part, allowed_rows(state, part, where), after, request.limit + 1))
    found.sort(key=lambda each: each[:2])
    page = found[: request.limit]
    points = [_point(state, part, row, request) for _, _, part, row in page]
    more = len(found) > request.limit
    return Page(points, _encode_cursor(state, page[-1][0], page[-1][1]) if more else None)


def _next_rows(
    part: PartView, allowed: Bitmap, after: tuple[int, bytes], wanted: int
) -> list[tuple[int, bytes, PartView, int]]:
    """At least the first ``wanted`` allowed rows of a part behind ``after``, as (hash, key, part, row)."""
    keys: Sequence[bytes]
    if isinstance(part, SegmentView):
        hashes, rows = part.reader.keys.hashes, part.reader.keys.hash_rows.astype(np.int64)
        keys = part.reader.keys
    else:
        rows = part.memtable.sorted_by_hash(part.rows)
        hashes = part.memtable.hashes[rows]
        keys = part.memtable.keys
    first = int(np.searchsorted(hashes, np.uint64(after[0]), "left"))
    hashes, rows = hashes[first:], rows[first:]
    at: I64Array = np.flatnonzero(allowed.contains(rows))
    found: list[tuple[int, bytes, PartView, int]] = []
    for position in at.tolist():
        place = (int(hashes[position]), keys[int(rows[position])])
        # Ids of equal hash are in no order within a part, so all of them are taken.
        if len(found) >= wanted and place[0] != found[-1][0]:
            break
        if place > after:
            found.append((*place, part, int(rows[position])))
    return found


def _cursor_tag(state: CollectionState) -> bytes:
    return state.manifest.collection_id.encode()[:_CURSOR_TAG_BYTES]


def _encode_cursor(state: CollectionState, id_hash: int, key: bytes) -> bytes:
    return _cursor_tag(state) + id_hash.to_bytes(_HASH_BYTES, "big") + key


def _decode_cursor(state: CollectionState, cursor: bytes | None) -> tuple[int, bytes]:
    if not cursor:
        return (0, b"")
    key_at = _CURSOR_TAG_BYTES + _HASH_BYTES
    if not isinstance(cursor, bytes) or len(cursor) <= key_at or cursor[:_CURSOR_TAG_BYTES] != _cursor_tag(state):
        raise InvalidArgument(
            "the cursor is not one of this collection", field="cursor", limit="a next_cursor of this collection"
        )
    return int.from_bytes(cursor[_CURSOR_TAG_BYTES:key_at], "big"), cursor[key_at:]
