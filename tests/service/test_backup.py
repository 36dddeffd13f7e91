"""A served backup: what its reader does to the server, and what the server holds for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.service.calling import failure_of, stub_of
from tests.service.running import LoopThread, serving
from vecdb.client import connect, connect_async
from vecdb.engine import backup
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.errors import DeadlineExceeded, InvalidArgument
from vecdb.v1 import vecdb_pb2


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedDatabase]:
    """With much more in it than a connection buffers."""
    monkeypatch.setattr(backup, "JOINED_BYTES", 65_536)
    with EmbeddedDatabase.open(tmp_path / "db", options=EngineOptions(kernels="reference")) as database:
        docs = database.create_collection("docs", dim=1_024, index="flat")
        docs.upsert(range(4_000), np.random.default_rng(1).standard_normal((4_000, 1_024)).astype(np.float32))
        docs.flush()
        yield database


def held(database: EmbeddedDatabase) -> int:
    with database._lease("docs", database.collection("docs").collection_id) as found:
        return len(found._state.files._pins)


def wait_until_free(database: EmbeddedDatabase) -> None:
    for _ in range(1_000):
        if not held(database):
            return
        time.sleep(0.01)
    raise AssertionError("files are still held")


def test_a_reader_that_goes_away_ends_what_is_held(loop: LoopThread, database: EmbeddedDatabase) -> None:
    with serving(loop, database) as server, stub_of(server.address) as stub:
        replies = stub.Backup(vecdb_pb2.BackupRequest())
        assert next(replies).data
        assert held(database)
        replies.cancel()
        wait_until_free(database)


def test_a_reader_that_stops_reading_is_cut_off(loop: LoopThread, database: EmbeddedDatabase) -> None:
    with serving(loop, database, deadline_s=0.5) as server, stub_of(server.address) as stub:
        replies = stub.Backup(vecdb_pb2.BackupRequest())
        assert next(replies).data
        wait_until_free(database)
        assert isinstance(failure_of(lambda: list(replies))[1], DeadlineExceeded)


def test_a_long_backup_is_not_cut_off(loop: LoopThread, database: EmbeddedDatabase, tmp_path: Path) -> None:
    # Longer than a busy machine takes for one message, and shorter than all of them together.
    with serving(loop, database, deadline_s=2.0) as server, connect(server.address) as client:
        slept = []

        def slowly(_: int) -> None:
            if len(slept) < 10:
                slept.append(time.sleep(0.25))

        assert client.backup(tmp_path / "a.vbak", progress=slowly).collections[0].points == 4_000


def test_a_cancelled_client_leaves_no_file(loop: LoopThread, database: EmbeddedDatabase, tmp_path: Path) -> None:
    async def cancelled(address: str) -> None:
        async with connect_async(address) as client:
            begun = asyncio.Event()
            task = asyncio.create_task(client.backup(tmp_path / "a.vbak", progress=lambda _: begun.set()))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with serving(loop, database) as server:
        loop.run(cancelled(server.address))
        wait_until_free(database)
    assert list(tmp_path.iterdir()) == [tmp_path / "db"]


def test_a_damaged_file_fails_the_call(loop: LoopThread, database: EmbeddedDatabase, tmp_path: Path) -> None:
    damaged = next((tmp_path / "db").rglob("*.vectors.*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with serving(loop, database) as server, connect(server.address) as client:
        with pytest.raises(Exception, match=damaged.name) as caught:
            client.backup(tmp_path / "a.vbak")
        assert caught.value.code == "CORRUPTION"
        assert list(tmp_path.iterdir()) == [tmp_path / "db"]
        wait_until_free(database)


def test_a_manifest_that_is_none_is_refused(loop: LoopThread, database: EmbeddedDatabase) -> None:
    with serving(loop, database) as server, stub_of(server.address) as stub:
        code, error = failure_of(lambda: list(stub.Backup(vecdb_pb2.BackupRequest(since_manifest=b"{"))))
        assert (code, type(error)) == (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument)


def test_closing_the_server_ends_a_backup(loop: LoopThread, database: EmbeddedDatabase, tmp_path: Path) -> None:
    with serving(loop, database) as server, stub_of(server.address) as stub:
        replies = stub.Backup(vecdb_pb2.BackupRequest())
        assert next(replies).data
    # Neither the server nor the database waited for a reader.
    with pytest.raises(grpc.RpcError):
        list(replies)
