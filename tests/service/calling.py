"""Calls to a server without vecdb's client: what any program that speaks gRPC sends and sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from vecdb.arguments import upsert_request
from vecdb.errors import VecdbError
from vecdb.requests import SearchRequest
from vecdb.v1 import vecdb_pb2
from vecdb.v1.vecdb_pb2_grpc import VecdbStub
from vecdb.wire.errors import DETAILS_KEY, decode_error
from vecdb.wire.requests import Target, encode_search, encode_write


@contextmanager
def channel_to(address: str, *options: tuple[str, Any]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1), *options)) as channel:
        yield channel


@contextmanager
def stub_of(address: str, *options: tuple[str, Any]) -> Iterator[VecdbStub]:
    with channel_to(address, *options) as channel:
        yield VecdbStub(channel)


def failure_of(call: Any) -> tuple[grpc.StatusCode, VecdbError]:
    """The status and the error with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    failure = caught.value
    details = dict(failure.trailing_metadata()).get(DETAILS_KEY)
    return failure.code(), decode_error(failure.code().value[0], failure.details(), details)


def search_message(dim: int = 2, k: int = 5, **arguments: Any) -> vecdb_pb2.SearchRequest:
    return encode_search(Target("docs"), SearchRequest(np.ones((1, dim), np.float32), k, **arguments))


def write_message(ids: list[Any], payload: dict[str, Any] | None = None) -> vecdb_pb2.WriteRequest:
    request = upsert_request(ids, np.ones((len(ids), 2)), [payload or {}] * len(ids), None)
    return encode_write(Target("docs"), request)
