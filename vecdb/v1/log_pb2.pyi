from vecdb.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogRecord(_message.Message):
    __slots__ = ("seq", "time_us", "request_id", "request_digest", "effects")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time_us: int
    request_id: str
    request_digest: int
    effects: _containers.RepeatedCompositeFieldContainer[Effect]
    def __init__(self, seq: _Optional[int] = ..., time_us: _Optional[int] = ..., request_id: _Optional[str] = ..., request_digest: _Optional[int] = ..., effects: _Optional[_Iterable[_Union[Effect, _Mapping]]] = ...) -> None: ...

class Effect(_message.Message):
    __slots__ = ("upsert", "delete")
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    upsert: UpsertEffect
    delete: DeleteEffect
    def __init__(self, upsert: _Optional[_Union[UpsertEffect, _Mapping]] = ..., delete: _Optional[_Union[DeleteEffect, _Mapping]] = ...) -> None: ...

class UpsertEffect(_message.Message):
    __slots__ = ("ids", "vectors", "payloads")
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ids: _values_pb2.IdColumn
    vectors: _containers.RepeatedCompositeFieldContainer[_values_pb2.VectorColumn]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[_values_pb2.VectorColumn, _Mapping]]] = ..., payloads: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DeleteEffect(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _values_pb2.IdColumn
    def __init__(self, ids: _Optional[_Union[_values_pb2.IdColumn, _Mapping]] = ...) -> None: ...

class AppliedRequest(_message.Message):
    __slots__ = ("request_id", "request_digest", "seq", "time_us", "upserted", "deleted")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    UPSERTED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    request_digest: int
    seq: int
    time_us: int
    upserted: int
    deleted: int
    def __init__(self, request_id: _Optional[str] = ..., request_digest: _Optional[int] = ..., seq: _Optional[int] = ..., time_us: _Optional[int] = ..., upserted: _Optional[int] = ..., deleted: _Optional[int] = ...) -> None: ...

class SegmentFile(_message.Message):
    __slots__ = ("role", "field", "generation", "name", "file_id", "size_bytes", "checksum")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    role: str
    field: str
    generation: int
    name: str
    file_id: int
    size_bytes: int
    checksum: int
    def __init__(self, role: _Optional[str] = ..., field: _Optional[str] = ..., generation: _Optional[int] = ..., name: _Optional[str] = ..., file_id: _Optional[int] = ..., size_bytes: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("segment_id", "rows", "seq_first", "seq_last", "files")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIRST_FIELD_NUMBER: _ClassVar[int]
    SEQ_LAST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    rows: int
    seq_first: int
    seq_last: int
    files: _containers.RepeatedCompositeFieldContainer[SegmentFile]
    def __init__(self, segment_id: _Optional[int] = ..., rows: _Optional[int] = ..., seq_first: _Optional[int] = ..., seq_last: _Optional[int] = ..., files: _Optional[_Iterable[_Union[SegmentFile, _Mapping]]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("name", "created_us", "seq", "segments", "live")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    created_us: int
    seq: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    live: SegmentFile
    def __init__(self, name: _Optional[str] = ..., created_us: _Optional[int] = ..., seq: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., live: _Optional[_Union[SegmentFile, _Mapping]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("collection", "collection_id", "schema", "flushed_seq", "next_segment_id", "segments", "id_hash_key", "snapshots", "log_file_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_SEQ_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    ID_HASH_KEY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    LOG_FILE_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_id: str
    schema: _values_pb2.CollectionSchema
    flushed_seq: int
    next_segment_id: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    id_hash_key: bytes
    snapshots: _containers.RepeatedCompositeFieldContainer[Snapshot]
    log_file_id: int
    def __init__(self, collection: _Optional[str] = ..., collection_id: _Optional[str] = ..., schema: _Optional[_Union[_values_pb2.CollectionSchema, _Mapping]] = ..., flushed_seq: _Optional[int] = ..., next_segment_id: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., id_hash_key: _Optional[bytes] = ..., snapshots: _Optional[_Iterable[_Union[Snapshot, _Mapping]]] = ..., log_file_id: _Optional[int] = ...) -> None: ...

class CatalogueEntry(_message.Message):
    __slots__ = ("name", "collection_id", "created_us")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    name: str
    collection_id: str
    created_us: int
    def __init__(self, name: _Optional[str] = ..., collection_id: _Optional[str] = ..., created_us: _Optional[int] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[MetadataEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[MetadataEntry, _Mapping]]] = ...) -> None: ...

class MetadataEntry(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...
