from vecdb.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfoReply(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "schema", "exist_ok")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema: _values_pb2.CollectionSchema
    exist_ok: bool
    def __init__(self, name: _Optional[str] = ..., schema: _Optional[_Union[_values_pb2.CollectionSchema, _Mapping]] = ..., exist_ok: bool = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CollectionReply(_message.Message):
    __slots__ = ("name", "schema", "collection_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema: _values_pb2.CollectionSchema
    collection_id: str
    def __init__(self, name: _Optional[str] = ..., schema: _Optional[_Union[_values_pb2.CollectionSchema, _Mapping]] = ..., collection_id: _Optional[str] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsReply(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Upsert(_message.Message):
    __slots__ = ("ids", "vectors", "payloads")
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ids: _values_pb2.IdColumn
    vectors: _containers.RepeatedCompositeFieldContainer[_values_pb2.VectorColumn]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[_values_pb2.VectorColumn, _Mapping]]] = ..., payloads: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DeleteIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _values_pb2.IdColumn
    def __init__(self, ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ...) -> None: ...

class DeleteWhere(_message.Message):
    __slots__ = ("where",)
    WHERE_FIELD_NUMBER: _ClassVar[int]
    where: _values_pb2.Filter
    def __init__(self, where: _Optional[_Union[_values_pb2.Filter, _Mapping]] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "request_id", "upsert", "delete_ids", "delete_where")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    DELETE_IDS_FIELD_NUMBER: _ClassVar[int]
    DELETE_WHERE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    request_id: str
    upsert: Upsert
    delete_ids: DeleteIds
    delete_where: DeleteWhere
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., request_id: _Optional[str] = ..., upsert: _Optional[_Union[Upsert, _Mapping]] = ..., delete_ids: _Optional[_Union[DeleteIds, _Mapping]] = ..., delete_where: _Optional[_Union[DeleteWhere, _Mapping]] = ...) -> None: ...

class WriteReply(_message.Message):
    __slots__ = ("seq", "durable_seq", "upserted", "deleted", "slowed_s")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DURABLE_SEQ_FIELD_NUMBER: _ClassVar[int]
    UPSERTED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SLOWED_S_FIELD_NUMBER: _ClassVar[int]
    seq: int
    durable_seq: int
    upserted: int
    deleted: int
    slowed_s: float
    def __init__(self, seq: _Optional[int] = ..., durable_seq: _Optional[int] = ..., upserted: _Optional[int] = ..., deleted: _Optional[int] = ..., slowed_s: _Optional[float] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "queries", "query_count", "only_field", "k", "where", "recall", "ef", "with_payloads", "with_vectors", "read_after_seq", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    QUERY_COUNT_FIELD_NUMBER: _ClassVar[int]
    ONLY_FIELD_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    READ_AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    queries: _values_pb2.VectorColumn
    query_count: int
    only_field: bool
    k: int
    where: _values_pb2.Filter
    recall: float
    ef: int
    with_payloads: bool
    with_vectors: bool
    read_after_seq: int
    at: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., queries: _Optional[_Union[_values_pb2.VectorColumn, _Mapping]] = ..., query_count: _Optional[int] = ..., only_field: bool = ..., k: _Optional[int] = ..., where: _Optional[_Union[_values_pb2.Filter, _Mapping]] = ..., recall: _Optional[float] = ..., ef: _Optional[int] = ..., with_payloads: bool = ..., with_vectors: bool = ..., read_after_seq: _Optional[int] = ..., at: _Optional[str] = ...) -> None: ...

class Ranking(_message.Message):
    __slots__ = ("ids", "distances", "scores", "payloads", "vectors", "complete", "strategy", "recall_estimate", "unindexed_rows")
    IDS_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    RECALL_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ids: _values_pb2.IdColumn
    distances: bytes
    scores: bytes
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    vectors: _containers.RepeatedCompositeFieldContainer[_values_pb2.VectorColumn]
    complete: bool
    strategy: str
    recall_estimate: float
    unindexed_rows: int
    def __init__(self, ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ..., distances: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., payloads: _Optional[_Iterable[bytes]] = ..., vectors: _Optional[_Iterable[_Union[_values_pb2.VectorColumn, _Mapping]]] = ..., complete: bool = ..., strategy: _Optional[str] = ..., recall_estimate: _Optional[float] = ..., unindexed_rows: _Optional[int] = ...) -> None: ...

class SearchReply(_message.Message):
    __slots__ = ("rankings",)
    RANKINGS_FIELD_NUMBER: _ClassVar[int]
    rankings: _containers.RepeatedCompositeFieldContainer[Ranking]
    def __init__(self, rankings: _Optional[_Iterable[_Union[Ranking, _Mapping]]] = ...) -> None: ...

class SearchSessionRequest(_message.Message):
    __slots__ = ("searches",)
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    searches: _containers.RepeatedCompositeFieldContainer[SessionSearch]
    def __init__(self, searches: _Optional[_Iterable[_Union[SessionSearch, _Mapping]]] = ...) -> None: ...

class SessionSearch(_message.Message):
    __slots__ = ("number", "search", "timeout_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    search: SearchRequest
    timeout_s: float
    def __init__(self, number: _Optional[int] = ..., search: _Optional[_Union[SearchRequest, _Mapping]] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class SearchSessionReply(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[SessionAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[SessionAnswer, _Mapping]]] = ...) -> None: ...

class SessionAnswer(_message.Message):
    __slots__ = ("number", "reply", "error")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    number: int
    reply: SearchReply
    error: SessionError
    def __init__(self, number: _Optional[int] = ..., reply: _Optional[_Union[SearchReply, _Mapping]] = ..., error: _Optional[_Union[SessionError, _Mapping]] = ...) -> None: ...

class SessionError(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: bytes
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[bytes] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("k", "recall", "ef", "parts", "strategy", "recall_estimate", "complete", "unindexed_rows", "hits_found", "plan_s", "merge_s", "fetch_s", "advice")
    K_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    RECALL_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    HITS_FOUND_FIELD_NUMBER: _ClassVar[int]
    PLAN_S_FIELD_NUMBER: _ClassVar[int]
    MERGE_S_FIELD_NUMBER: _ClassVar[int]
    FETCH_S_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    k: int
    recall: float
    ef: int
    parts: _containers.RepeatedCompositeFieldContainer[ExplainedPart]
    strategy: str
    recall_estimate: float
    complete: bool
    unindexed_rows: int
    hits_found: int
    plan_s: float
    merge_s: float
    fetch_s: float
    advice: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, k: _Optional[int] = ..., recall: _Optional[float] = ..., ef: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[ExplainedPart, _Mapping]]] = ..., strategy: _Optional[str] = ..., recall_estimate: _Optional[float] = ..., complete: bool = ..., unindexed_rows: _Optional[int] = ..., hits_found: _Optional[int] = ..., plan_s: _Optional[float] = ..., merge_s: _Optional[float] = ..., fetch_s: _Optional[float] = ..., advice: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainedPart(_message.Message):
    __slots__ = ("segment_id", "rows", "allowed_rows", "selectivity_estimate", "selectivity", "strategy", "ef", "recall_estimate", "distance_computations", "hops", "reranked", "fell_back", "filter_s", "open_s", "search_s")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_ROWS_FIELD_NUMBER: _ClassVar[int]
    SELECTIVITY_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    SELECTIVITY_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    RECALL_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_COMPUTATIONS_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    RERANKED_FIELD_NUMBER: _ClassVar[int]
    FELL_BACK_FIELD_NUMBER: _ClassVar[int]
    FILTER_S_FIELD_NUMBER: _ClassVar[int]
    OPEN_S_FIELD_NUMBER: _ClassVar[int]
    SEARCH_S_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    rows: int
    allowed_rows: int
    selectivity_estimate: float
    selectivity: float
    strategy: str
    ef: int
    recall_estimate: float
    distance_computations: int
    hops: int
    reranked: int
    fell_back: bool
    filter_s: float
    open_s: float
    search_s: float
    def __init__(self, segment_id: _Optional[int] = ..., rows: _Optional[int] = ..., allowed_rows: _Optional[int] = ..., selectivity_estimate: _Optional[float] = ..., selectivity: _Optional[float] = ..., strategy: _Optional[str] = ..., ef: _Optional[int] = ..., recall_estimate: _Optional[float] = ..., distance_computations: _Optional[int] = ..., hops: _Optional[int] = ..., reranked: _Optional[int] = ..., fell_back: bool = ..., filter_s: _Optional[float] = ..., open_s: _Optional[float] = ..., search_s: _Optional[float] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "ids", "with_payloads", "with_vectors", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    ids: _values_pb2.IdColumn
    with_payloads: bool
    with_vectors: bool
    at: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ..., with_payloads: bool = ..., with_vectors: bool = ..., at: _Optional[str] = ...) -> None: ...

class PointsReply(_message.Message):
    __slots__ = ("ids", "payloads", "vectors", "next_cursor")
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    ids: _values_pb2.IdColumn
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    vectors: _containers.RepeatedCompositeFieldContainer[_values_pb2.VectorColumn]
    next_cursor: bytes
    def __init__(self, ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ..., payloads: _Optional[_Iterable[bytes]] = ..., vectors: _Optional[_Iterable[_Union[_values_pb2.VectorColumn, _Mapping]]] = ..., next_cursor: _Optional[bytes] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "where", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    where: _values_pb2.Filter
    at: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., where: _Optional[_Union[_values_pb2.Filter, _Mapping]] = ..., at: _Optional[str] = ...) -> None: ...

class CountReply(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ScrollRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "where", "limit", "cursor", "with_payloads", "with_vectors", "at")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    where: _values_pb2.Filter
    limit: int
    cursor: bytes
    with_payloads: bool
    with_vectors: bool
    at: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., where: _Optional[_Union[_values_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[bytes] = ..., with_payloads: bool = ..., with_vectors: bool = ..., at: _Optional[str] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("collection", "collection_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ...) -> None: ...

class StatsReply(_message.Message):
    __slots__ = ("points", "deleted_rows", "unindexed_rows", "memtable_rows", "segments", "last_seq", "flushed_seq", "disk_bytes", "log_bytes", "role_bytes", "events", "memory", "calibration", "live_recall")
    class RoleBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class EventsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    POINTS_FIELD_NUMBER: _ClassVar[int]
    DELETED_ROWS_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    MEMTABLE_ROWS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_SEQ_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    LIVE_RECALL_FIELD_NUMBER: _ClassVar[int]
    points: int
    deleted_rows: int
    unindexed_rows: int
    memtable_rows: int
    segments: int
    last_seq: int
    flushed_seq: int
    disk_bytes: int
    log_bytes: int
    role_bytes: _containers.ScalarMap[str, int]
    events: _containers.ScalarMap[str, int]
    memory: MemoryUse
    calibration: _containers.RepeatedCompositeFieldContainer[FieldCalibration]
    live_recall: _containers.RepeatedCompositeFieldContainer[LiveRecall]
    def __init__(self, points: _Optional[int] = ..., deleted_rows: _Optional[int] = ..., unindexed_rows: _Optional[int] = ..., memtable_rows: _Optional[int] = ..., segments: _Optional[int] = ..., last_seq: _Optional[int] = ..., flushed_seq: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., log_bytes: _Optional[int] = ..., role_bytes: _Optional[_Mapping[str, int]] = ..., events: _Optional[_Mapping[str, int]] = ..., memory: _Optional[_Union[MemoryUse, _Mapping]] = ..., calibration: _Optional[_Iterable[_Union[FieldCalibration, _Mapping]]] = ..., live_recall: _Optional[_Iterable[_Union[LiveRecall, _Mapping]]] = ...) -> None: ...

class MemoryUse(_message.Message):
    __slots__ = ("budget_bytes", "mapped_bytes", "derived_bytes", "rows_bytes", "releases")
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DERIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_BYTES_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    budget_bytes: int
    mapped_bytes: int
    derived_bytes: int
    rows_bytes: int
    releases: int
    def __init__(self, budget_bytes: _Optional[int] = ..., mapped_bytes: _Optional[int] = ..., derived_bytes: _Optional[int] = ..., rows_bytes: _Optional[int] = ..., releases: _Optional[int] = ...) -> None: ...

class WarmRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "with_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    with_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., with_vectors: bool = ...) -> None: ...

class WarmReply(_message.Message):
    __slots__ = ("segments", "resident_bytes", "left_out_bytes", "kernels", "kernels_compiled", "compile_s", "verify_s", "read_s")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    KERNELS_COMPILED_FIELD_NUMBER: _ClassVar[int]
    COMPILE_S_FIELD_NUMBER: _ClassVar[int]
    VERIFY_S_FIELD_NUMBER: _ClassVar[int]
    READ_S_FIELD_NUMBER: _ClassVar[int]
    segments: int
    resident_bytes: int
    left_out_bytes: int
    kernels: int
    kernels_compiled: int
    compile_s: float
    verify_s: float
    read_s: float
    def __init__(self, segments: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., left_out_bytes: _Optional[int] = ..., kernels: _Optional[int] = ..., kernels_compiled: _Optional[int] = ..., compile_s: _Optional[float] = ..., verify_s: _Optional[float] = ..., read_s: _Optional[float] = ...) -> None: ...

class FieldCalibration(_message.Message):
    __slots__ = ("field", "graphs", "calibrated", "costs")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    GRAPHS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    field: str
    graphs: int
    calibrated: int
    costs: _containers.RepeatedCompositeFieldContainer[CalibratedCost]
    def __init__(self, field: _Optional[str] = ..., graphs: _Optional[int] = ..., calibrated: _Optional[int] = ..., costs: _Optional[_Iterable[_Union[CalibratedCost, _Mapping]]] = ...) -> None: ...

class CalibratedCost(_message.Message):
    __slots__ = ("recall", "distance_computations")
    RECALL_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_COMPUTATIONS_FIELD_NUMBER: _ClassVar[int]
    recall: float
    distance_computations: float
    def __init__(self, recall: _Optional[float] = ..., distance_computations: _Optional[float] = ...) -> None: ...

class LiveRecall(_message.Message):
    __slots__ = ("field", "recall", "share", "estimate", "low", "high", "samples", "correction")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    recall: float
    share: float
    estimate: float
    low: float
    high: float
    samples: int
    correction: float
    def __init__(self, field: _Optional[str] = ..., recall: _Optional[float] = ..., share: _Optional[float] = ..., estimate: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., samples: _Optional[int] = ..., correction: _Optional[float] = ...) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("collection", "collection_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ...) -> None: ...

class FlushReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitIndexedRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "timeout_s")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    timeout_s: float
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class WaitIndexedReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "timeout_s", "dry_run")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    timeout_s: float
    dry_run: bool
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., timeout_s: _Optional[float] = ..., dry_run: bool = ...) -> None: ...

class PurgeRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "timeout_s")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    timeout_s: float
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class CompactReply(_message.Message):
    __slots__ = ("segments_before", "segments_after", "size_bytes_before", "size_bytes_after", "rows_dropped")
    SEGMENTS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_AFTER_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_AFTER_FIELD_NUMBER: _ClassVar[int]
    ROWS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    segments_before: int
    segments_after: int
    size_bytes_before: int
    size_bytes_after: int
    rows_dropped: int
    def __init__(self, segments_before: _Optional[int] = ..., segments_after: _Optional[int] = ..., size_bytes_before: _Optional[int] = ..., size_bytes_after: _Optional[int] = ..., rows_dropped: _Optional[int] = ...) -> None: ...

class CreateSnapshotRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DropSnapshotRequest(_message.Message):
    __slots__ = ("collection", "collection_id", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DropSnapshotReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSnapshotsRequest(_message.Message):
    __slots__ = ("collection", "collection_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ...) -> None: ...

class Snapshots(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[SnapshotFacts]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[SnapshotFacts, _Mapping]]] = ...) -> None: ...

class SnapshotFacts(_message.Message):
    __slots__ = ("name", "created_s", "seq")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_S_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    name: str
    created_s: float
    seq: int
    def __init__(self, name: _Optional[str] = ..., created_s: _Optional[float] = ..., seq: _Optional[int] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("since_manifest",)
    SINCE_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    since_manifest: bytes
    def __init__(self, since_manifest: _Optional[bytes] = ...) -> None: ...

class BackupReply(_message.Message):
    __slots__ = ("data", "manifest")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    manifest: bytes
    def __init__(self, data: _Optional[bytes] = ..., manifest: _Optional[bytes] = ...) -> None: ...
