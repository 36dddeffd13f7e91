"""The oracle: a database of plain dicts with exact search in NumPy. It shares the validation of requests, nothing else.

What it does is the contract; the embedded and the served database must do the same, and say the same of what is wrong.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from tests.contract.memory_filter import satisfies
from vecdb.api import Collection, Database
from vecdb.arguments import as_timeout_s
from vecdb.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from vecdb.explanation import Explanation, PartExplanation
from vecdb.filter import Filter, parse_filter
from vecdb.payload import decode_payload
from vecdb.requests import (
    CountRequest,
    DeleteRequest,
    FilterText,
    GetRequest,
    ScrollRequest,
    SearchRequest,
    UpsertRequest,
    Where,
    WriteRequest,
    check_against_schema,
    check_batch,
    check_explain,
    check_scroll,
    check_search,
    check_vectors,
)
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Page, Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.schema import CollectionSchema, check_name
from vecdb.types import F32Array, Metric, PointId


@dataclass
class Stored:
    payload: bytes
    vectors: dict[str, F32Array]


class MemoryDatabase(Database):
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held: dict[str, MemoryCollection] = {}
        self.closed = False

    def run_create(self, name: str, schema: CollectionSchema, exist_ok: bool) -> MemoryCollection:
        check_name(name, "collection")
        self.check_open()
        with self.lock:
            if name in self.held:
                found = self.held[name]
                if exist_ok and found.schema == schema:
                    return found
                told = "exists with another schema" if exist_ok else "exists"
                raise AlreadyExists(f"collection {name!r} {told}", field="collection", value=name)
            self.held[name] = MemoryCollection(self, name, schema)
            return self.held[name]

    def backup(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise Unimplemented("the oracle has no files")

    def run_backup(self, since_manifest: bytes) -> NoReturn:
        raise Unimplemented("the oracle has no files")

    def collection(self, name: str) -> MemoryCollection:
        check_name(name, "collection")
        self.check_open()
        found = self.held.get(name)
        if found is None:
            raise NotFound(f"no collection {name!r}", field="collection", value=name)
        return found

    def run_search_at_once(self, name: str, collection_id: str, request: SearchRequest) -> list[Hits] | None:
        found = self.held.get(name)
        if found is None or collection_id not in ("", found.collection_id):
            return None
        return found.run_search(request)

    def collections(self) -> Sequence[str]:
        self.check_open()
        return sorted(self.held)

    def drop_collection(self, name: str) -> None:
        with self.lock:
            self.collection(name)
            del self.held[name]

    def close(self) -> None:
        self.closed = True

    def check_open(self) -> None:
        if self.closed:
            raise FailedPrecondition("the database is closed", field="database")


class MemoryCollection(Collection):
    def __init__(self, database: MemoryDatabase, name: str, schema: CollectionSchema) -> None:
        self.name = name
        self.collection_id = uuid.uuid4().hex
        self.schema = schema
        self.database = database
        self.points: dict[PointId, Stored] = {}
        self.kept: dict[str, tuple[SnapshotInfo, dict[PointId, Stored]]] = {}
        self.seq = 0
        self.applied: dict[str, tuple[object, WriteResult]] = {}

    def check(self) -> None:
        self.database.check_open()
        if self.database.held.get(self.name) is not self:
            raise NotFound(f"no collection {self.name!r}", field="collection", value=self.name)

    def run_write(self, request: WriteRequest) -> WriteResult:
        self.check()
        check_batch(request)
        if isinstance(request, UpsertRequest):
            check_against_schema(request, self.schema)
        where = bound(request.where) if isinstance(request, DeleteRequest) else None
        with self.database.lock:
            if request.request_id in self.applied:
                content, result = self.applied[request.request_id]
                if content != content_of(request):
                    raise InvalidArgument(
                        f"request_id {request.request_id!r} was used for another request (seq {result.seq}); "
                        "ids name one request only",
                        field="request_id",
                        value=request.request_id,
                    )
                return result
            if isinstance(request, UpsertRequest):
                upserted, deleted = self.upsert_all(request), 0
            else:
                upserted, deleted = 0, self.delete_all(request, where)
            if not upserted and not deleted:
                return WriteResult(self.seq, self.seq)
            self.seq += 1
            result = WriteResult(self.seq, self.seq, upserted, deleted)
            if request.request_id:
                self.applied[request.request_id] = content_of(request), result
            return result

    def upsert_all(self, request: UpsertRequest) -> int:
        added = {each: Stored(payload, {}) for each, payload in zip(request.ids, request.payloads, strict=True)}
        for name, column in request.vectors.items():
            rows = range(len(request.ids)) if column.rows is None else column.rows.tolist()
            for row, values in zip(rows, column.values, strict=True):
                added[request.ids[row]].vectors[name] = values.copy()
        self.points.update(added)
        return len(added)

    def delete_all(self, request: DeleteRequest, where: Filter | None) -> int:
        ids = self.matching(where) if request.ids is None else set(request.ids) & self.points.keys()
        for each in ids:
            del self.points[each]
        return len(ids)

    def points_at(self, at: str) -> dict[PointId, Stored]:
        if not at:
            return self.points
        if at not in self.kept:
            raise NotFound(f"no snapshot {at!r}", field="snapshot", value=at)
        return self.kept[at][1]

    def matching(self, where: Filter | None, at: str = "") -> list[PointId]:
        return [
            each
            for each, stored in self.points_at(at).items()
            if where is None or satisfies(where, decode_payload(stored.payload))
        ]

    def run_search(self, request: SearchRequest) -> list[Hits]:
        self.check()
        check_search(request)
        with self.database.lock:
            if request.read_after_seq > self.seq:
                raise DeadlineExceeded(
                    f"write {request.read_after_seq} is not visible after 0 s; the last one is {self.seq}",
                    field="read_after_seq",
                )
            declared = self.schema.vector(request.field)
            check_vectors(request.queries, declared, "query" if request.queries.shape[0] == 1 else "queries")
            points = self.points_at(request.at)
            allowed = self.matching(bound(request.where), request.at)
            found = {each: points[each] for each in allowed if declared.name in points[each].vectors}
            return [ranked(query, found, declared.name, declared.metric, request) for query in request.queries]

    def run_explain(self, request: SearchRequest) -> Explanation:
        check_explain(request)
        [hits] = self.run_search(request)
        declared = self.schema.vector(request.field)
        points = self.points_at(request.at)
        rows = sum(declared.name in stored.vectors for stored in points.values())
        allowed = sum(declared.name in points[each].vectors for each in self.matching(bound(request.where), request.at))
        share = allowed / rows if rows else 0.0
        rows = rows if allowed else len(points)
        part = PartExplanation(None, rows, allowed, share, share, hits.strategy, distance_computations=allowed)
        return Explanation(
            request.k,
            request.recall if request.ef is None else None,
            request.ef,
            (part,) if points else (),
            hits.strategy,
            hits.recall_estimate,
            len(hits),
            hits.complete,
            hits.unindexed_rows,
        )

    def run_get(self, request: GetRequest) -> list[Point]:
        self.check()
        with self.database.lock:
            return [self.point(each, request) for each in request.ids if each in self.points_at(request.at)]

    def run_count(self, request: CountRequest) -> int:
        self.check()
        with self.database.lock:
            return len(self.matching(bound(request.where), request.at))

    def run_scroll(self, request: ScrollRequest) -> Page:
        self.check()
        check_scroll(request)
        if request.cursor and not request.cursor.startswith(b"memory:"):
            raise InvalidArgument(
                "the cursor is not one of this collection", field="cursor", limit="a next_cursor of this collection"
            )
        after = (request.cursor or b"")[len(b"memory:") :]
        with self.database.lock:
            matching = self.matching(bound(request.where), request.at)
            ids = sorted((place(each), each) for each in matching if place(each) > after)
            page = ids[: request.limit]
            points = [self.point(each, request) for _, each in page]
        return Page(points, b"memory:" + page[-1][0] if len(ids) > len(page) else None)

    def point(self, point_id: PointId, request: GetRequest | ScrollRequest) -> Point:
        stored = self.points_at(request.at)[point_id]
        return Point(
            point_id,
            stored.payload if request.with_payloads else None,
            dict(stored.vectors) if request.with_vectors else {},
        )

    def warm(self, *, with_vectors: bool = False) -> WarmReport:
        self.check()
        return WarmReport()

    def stats(self) -> CollectionStats:
        self.check()
        return CollectionStats(len(self.points), 0, 0, len(self.points), 0, self.seq, 0, 0, 0, {}, {})

    def flush(self) -> None:
        self.check()

    def wait_indexed(self, timeout_s: float = 600.0) -> None:
        as_timeout_s(timeout_s)
        self.check()

    def compact(self, timeout_s: float = 600.0, *, dry_run: bool = False) -> CompactionReport:
        as_timeout_s(timeout_s)
        self.check()
        return CompactionReport(0, 0, 0, 0, 0)

    def purge(self, timeout_s: float = 600.0) -> CompactionReport:
        for name, (_, points) in sorted(self.kept.items()):
            if any(self.points.get(each) is not stored for each, stored in points.items()):
                raise FailedPrecondition(
                    f"snapshot {name!r} keeps points that were deleted after it; drop it first",
                    field="snapshot",
                    value=name,
                )
        return self.compact(timeout_s)

    def create_snapshot(self, name: str) -> SnapshotInfo:
        check_name(name, "snapshot")
        self.check()
        with self.database.lock:
            if name in self.kept:
                raise AlreadyExists(f"snapshot {name!r} exists", field="snapshot", value=name)
            self.kept[name] = SnapshotInfo(name, time.time(), self.seq), dict(self.points)
            return self.kept[name][0]

    def drop_snapshot(self, name: str) -> None:
        check_name(name, "snapshot")
        self.check()
        with self.database.lock:
            self.points_at(name)
            del self.kept[name]

    def snapshots(self) -> Sequence[SnapshotInfo]:
        self.check()
        return [self.kept[name][0] for name in sorted(self.kept)]


def bound(where: Where) -> Filter | None:
    return parse_filter(where.text, where.parameters) if isinstance(where, FilterText) else where


def content_of(request: WriteRequest) -> object:
    if isinstance(request, DeleteRequest):
        return repr(replace(request, request_id=""))
    columns = {
        name: (column.values.shape, column.values.tobytes(), None if column.rows is None else column.rows.tobytes())
        for name, column in request.vectors.items()
    }
    return request.ids, columns, request.payloads


def place(point_id: PointId) -> bytes:
    return hashlib.sha256(repr(point_id).encode()).digest()


def ranked(
    query: F32Array, points: Mapping[PointId, Stored], field: str, metric: Metric, request: SearchRequest
) -> Hits:
    ids = list(points)
    rows = np.array([points[each].vectors[field] for each in ids], np.float64).reshape(len(ids), query.shape[0])
    scores, distances = compared(rows, query.astype(np.float64), metric)
    order = np.argsort(-scores, kind="stable")[: request.k]
    chosen = [points[ids[at]] for at in order]
    return Hits(
        [ids[at] for at in order],
        scores[order].astype(np.float32),
        distances[order].astype(np.float32),
        complete=True,
        strategy="exact" if len(order) else "nothing",
        recall_estimate=1.0,
        unindexed_rows=0,
        payload_of=(lambda at: chosen[at].payload) if request.with_payloads else None,
        vectors_of=(lambda at: chosen[at].vectors) if request.with_vectors else None,
    )


def compared(rows: np.ndarray, query: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Score and natural distance of each row, in float64."""
    if metric is Metric.L2:
        distances = np.linalg.norm(rows - query, axis=1)
        return -distances, distances
    products = rows @ query
    if metric is Metric.DOT:
        return products, products
    scores = products / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
    return scores, 1.0 - scores
