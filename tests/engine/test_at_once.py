"""Searches for an event loop: answered where everything is at hand, handed back where anything would be waited for."""

import time
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from vecdb.arguments import search_request
from vecdb.engine import store
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.errors import Corruption, FailedPrecondition, InvalidArgument
from vecdb.kernels.cpu import CpuKernels
from vecdb.query import execute
from vecdb.schema import CollectionSchema, IndexSpec, VectorField
from vecdb.storage.array_file import ArrayFile

UNVERIFIED = replace(SMALL, verify_ahead_bytes_max=0)


def request_for(query, k=5, **arguments):
    given = {
        "field": None, "where": None, "params": None, "recall": None, "ef": None, "with_payloads": True,
        "with_vectors": False, "read_after_seq": 0, "at": None,
    }  # fmt: skip
    return search_request(query, k, batch=False, **(given | arguments))


def at_once(database, query, name="c", collection_id="", **arguments):
    hits = database.run_search_at_once(name, collection_id, request_for(query, **arguments))
    return None if hits is None else hits[0].ids


def until_at_once(database, query, name="c", collection_id="", **arguments):
    """The ids, once what a search has asked for is verified in the background.

    Until then it is made as by a server, which makes by itself what is handed back: once all is verified it runs other
    kernels than before, and loads them.
    """
    end = time.monotonic() + 30
    while (found := at_once(database, query, name, collection_id, **arguments)) is None:
        assert time.monotonic() < end
        wait_verified(database.collection(name))
        database.collection(name).search(query, **({"k": 5} | arguments))
    return found


def wait_verified(collection):
    """Until verification ahead rests: a run of it that begins late opens and verifies what was written meanwhile."""
    end = time.monotonic() + 30
    with collection._lease() as opened:
        while opened._verifier._work._future is not None:
            assert time.monotonic() < end
            time.sleep(0.005)


@pytest.fixture
def filled(open_database, vectors):
    """A collection of several segments with graphs, and rows in memory; nothing was searched yet."""
    with open_database() as database:
        collection = database.create_collection("c", DIM)
        for start in range(0, 600, 50):
            collection.upsert(range(start, start + 50), vectors[start : start + 50], [{"n": 1}] * 50)
        collection.wait_indexed()
        collection.upsert(range(600, 620), vectors[600:620])
    return open_database()


def test_what_was_searched_before_is_searched_at_once(filled, vectors):
    collection = filled.collection("c")
    assert collection.stats().segments > 1
    assert at_once(filled, vectors[700]) is None
    ids = collection.search(vectors[700], k=5).ids
    assert until_at_once(filled, vectors[700]) == ids
    assert until_at_once(filled, vectors[700], collection_id=collection.collection_id) == ids
    hits = filled.run_search_at_once("c", "", request_for(vectors[3]))[0]
    assert hits[0].payload == {"n": 1}


def test_a_collection_that_was_closed_meanwhile_is_not_opened(open_database, vectors, monkeypatch):
    options = EngineOptions(open_collections_max=1, kernels="cpu")
    database = open_database(options)
    for name in "ab":
        database.create_collection(name, DIM).upsert(range(50), vectors[:50])
    database.collection("a").search(vectors[0])
    assert until_at_once(database, vectors[0], name="a")[0] == 0
    database.collection("b").search(vectors[0])
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedDatabase, "_open_collection", lambda *_: pytest.fail("opened"))
        assert at_once(database, vectors[0], name="a") is None
    database.collection("a").search(vectors[0])
    assert until_at_once(database, vectors[0], name="a")[0] == 0


def test_a_new_segment_and_a_new_graph_are_first_opened_elsewhere(filled, vectors):
    collection = filled.collection("c")
    collection.search(vectors[0])
    until_at_once(filled, vectors[0])
    wait_verified(collection)
    collection.upsert(range(700, 900), vectors[700:900])
    collection.wait_indexed()
    assert at_once(filled, vectors[800]) is None
    assert collection.search(vectors[800]).ids[0] == 800
    assert until_at_once(filled, vectors[800])[0] == 800


def test_what_is_not_verified_is_not_read_at_once(open_database, vectors):
    with open_database() as database:
        collection = database.create_collection("c", DIM)
        collection.upsert(range(300), vectors[:300])
        collection.flush()
    database = open_database(UNVERIFIED)
    database.collection("c").search(vectors[0])
    time.sleep(0.1)
    assert at_once(database, vectors[0]) is None


def _few(collection, vectors):
    collection.upsert(range(4), vectors[:4])


def _many(collection, vectors):
    for start in range(0, 600, 50):
        collection.upsert(range(start, start + 50), vectors[start : start + 50])


def _all_again(collection, vectors):
    _many(collection, vectors)
    collection.flush()
    _many(collection, vectors)


def _most_deleted(collection, vectors):
    _many(collection, vectors)
    collection.flush()
    collection.delete(range(20, 600))


def _all_deleted(collection, vectors):
    _many(collection, vectors)
    collection.flush()
    collection.delete(range(600))


FILLINGS = {each.__name__.strip("_"): each for each in (_few, _many, _all_again, _most_deleted, _all_deleted)}


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("index", ["hnsw", "flat"])
@pytest.mark.parametrize("arguments", [{}, {"recall": 1.0}, {"k": 250}, {"ef": 500}], ids=str)
def test_whatever_the_plan_a_search_is_soon_made_at_once(open_database, vectors, filling, index, arguments):
    with open_database() as database:
        collection = database.create_collection("c", DIM, index=IndexSpec.parse(index))
        FILLINGS[filling](collection, vectors)
        collection.wait_indexed()
    database = open_database()
    database.collection("c").upsert(["in memory"], vectors[999:])
    expected = database.collection("c").search(vectors[900], **({"k": 5} | arguments)).ids
    assert until_at_once(database, vectors[900], **arguments) == expected


def test_fields_that_are_not_searched_need_not_be_open(open_database, vectors):
    schema = CollectionSchema((VectorField(DIM, name="a"), VectorField(DIM, name="b")))
    with open_database() as database:
        collection = database.create_collection("c", schema=schema)
        for start in range(0, 600, 50):
            both = {"a": vectors[start : start + 50], "b": vectors[start : start + 50]}
            # Later segments lack the field that is searched, but for a few points.
            few = {"a": [*vectors[start : start + 2], *[None] * 48], "b": vectors[start : start + 50]}
            collection.upsert(range(start, start + 50), both if start < 200 else few)
        collection.wait_indexed()
    database = open_database()
    database.collection("c").search(vectors[0], field="a")
    assert until_at_once(database, vectors[0], field="a")[0] == 0


def test_a_graph_that_comes_between_planning_and_searching_is_left_alone(filled, vectors, monkeypatch):
    """The structures are those of the plan, whatever is attached meanwhile."""
    collection = filled.collection("c")
    collection.search(vectors[0])
    before = until_at_once(filled, vectors[0])
    planned = store.plan_at_once

    def attaching(state, view, request):
        search = planned(state, view, request)
        for segment in view.segments:
            for file in segment.reader.entry.files:
                segment.reader.attach(file)
        monkeypatch.setattr(ArrayFile, "open", lambda *_, **__: pytest.fail("opened"))
        return search

    with monkeypatch.context() as patch:
        patch.setattr(store, "plan_at_once", attaching)
        assert at_once(filled, vectors[0], with_payloads=False) == before


def test_one_damaged_file_does_not_keep_the_others_from_being_verified(open_database, vectors, tmp_path):
    with open_database() as database:
        collection = database.create_collection("c", DIM)
        for start in range(0, 600, 50):
            collection.upsert(range(start, start + 50), vectors[start : start + 50])
        collection.wait_indexed()
        assert collection.stats().segments > 1
    (file,) = tmp_path.glob("db/collections/*/0000000001.seqs.0")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(damaged)
    database = open_database()
    database.collection("c").search(vectors[0])
    assert until_at_once(database, vectors[0])[0] == 0


def test_what_has_to_be_compiled_or_scanned_for_long_is_not_made_at_once(filled, vectors, monkeypatch):
    filled.collection("c").search(vectors[0])
    until_at_once(filled, vectors[0])
    for verb in ("scan_topk", "answer_graph", "merge"):
        with monkeypatch.context() as patch:
            patch.setattr(CpuKernels, "is_ready", lambda _self, *verbs, verb=verb: verb not in verbs)
            assert at_once(filled, vectors[0]) is None
    with monkeypatch.context() as patch:
        # The 20 rows in memory are scanned.
        patch.setattr(execute, "SCANNED_BYTES_MAX", 4 * 20 * DIM)
        assert at_once(filled, vectors[0]) is not None
        patch.setattr(execute, "SCANNED_BYTES_MAX", 4 * 20 * DIM - 1)
        assert at_once(filled, vectors[0]) is None


def test_what_would_wait_or_fails_is_left_to_the_search_itself(filled, vectors):
    collection = filled.collection("c")
    collection.search(vectors[0])
    until_at_once(filled, vectors[0])
    last = collection.stats().last_seq
    assert at_once(filled, vectors[0], read_after_seq=last) is not None
    assert at_once(filled, vectors[0], read_after_seq=last + 1) is None
    assert at_once(filled, vectors[0], where="n = 1") is None
    assert at_once(filled, vectors[0], with_vectors=True) is None
    assert at_once(filled, vectors[0], name="nobody") is None
    assert at_once(filled, vectors[0], collection_id="0" * 16) is None
    with pytest.raises(InvalidArgument, match="dimensions"):
        at_once(filled, vectors[0, :3])
    filled.drop_collection("c")
    assert at_once(filled, vectors[0]) is None
    filled.close()
    with pytest.raises(FailedPrecondition):
        at_once(filled, vectors[0])


@pytest.mark.parametrize("role", ["ids", "payload"])
@pytest.mark.parametrize("with_payloads", [True, False])
def test_a_damaged_file_of_a_segment_without_hits_is_not_needed(open_database, tmp_path, role, with_payloads):
    near, far = np.eye(DIM, dtype=np.float32), 100 + np.eye(DIM, dtype=np.float32)
    with open_database(UNVERIFIED) as database:
        collection = database.create_collection("c", DIM, "l2")
        collection.upsert(range(DIM), near, [{"n": 1}] * DIM)
        collection.flush()
        collection.upsert(range(DIM, 2 * DIM), far, [{"n": 2}] * DIM)
        collection.flush()
    (file,) = tmp_path.glob(f"db/collections/*/0000000002.{role}.0")
    file.unlink()
    collection = open_database(UNVERIFIED).collection("c")
    hits = collection.search(near[3], k=4, with_payloads=with_payloads)
    assert hits.ids[0] == 3
    assert max(hits.ids) < DIM
    if role == "ids" or with_payloads:
        with pytest.raises(Corruption):
            collection.search(far[3], k=4, with_payloads=with_payloads)
