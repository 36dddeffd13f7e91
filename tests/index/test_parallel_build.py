"""Building by several threads: the same bytes for any number of them, no thread left behind, no failure lost."""

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from vecdb.errors import ResourceExhausted
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import Crew, HnswBuilder, HnswParams
from vecdb.index.hnsw.phase import Pace, Phase
from vecdb.kernels.cpu import CpuKernels
from vecdb.types import Metric

KERNELS = CpuKernels()


@pytest.fixture
def crew():
    """A crew of so many threads, of which each call makes one."""
    pools = []

    def of(threads):
        pools.append(ThreadPoolExecutor(threads))
        return Crew(threads - 1, pools[-1])

    yield of
    for pool in pools:
        pool.shutdown()


def bytes_of(builder):
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in builder.arrays().items()}


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT])
def test_any_number_of_threads_builds_the_same_bytes(rng, crew, metric):
    vectors = rng.normal(size=(40, 24))[rng.integers(0, 40, 3000)] + rng.normal(size=(3000, 24))
    codes = ScalarCodes.encode(KERNELS, vectors.astype(np.float32), metric)
    params = HnswParams(m=6, ef_construction=24, seed=5)
    alone = HnswBuilder(KERNELS, codes, params)
    alone.run()
    expected = bytes_of(alone)
    for threads in (2, 4, 4):
        builder = HnswBuilder(KERNELS, codes, params, crew(threads))
        # Interrupted now and then, wherever that may be.
        while not builder.step(0.01):
            pass
        assert bytes_of(builder) == expected


def test_every_number_is_worked_on_once_and_by_all_threads(crew):
    done = np.zeros(2000, np.int64)
    threads = set()

    def work(first, end):
        done[first:end] += 1
        threads.add(threading.get_ident())
        time.sleep(0.001)

    phase = Phase(2000, work, Pace(10, 10))
    asked = itertools.count(1)
    team = crew(3)
    while not team.work_on(phase, lambda: next(asked) % 7 == 0):
        pass
    assert (done == 1).all()
    assert len(threads) == 3


def test_a_cancelled_phase_leaves_no_thread_at_work(crew):
    running = []

    def work(first, end):
        running.append(first)
        time.sleep(0.01)
        running.remove(first)

    phase = Phase(1000, work, Pace(1, 1))
    assert not crew(4).work_on(phase, lambda: True)
    assert running == []
    assert 0 < phase.taken < 1000


@pytest.mark.parametrize("helper", [False, True])
def test_what_a_thread_raises_comes_out(crew, helper):
    caller = threading.get_ident()
    ended = []

    def work(first, end):
        time.sleep(0.002)
        if (threading.get_ident() != caller) == helper:
            raise MemoryError
        ended.append(first)

    phase = Phase(10_000, work, Pace(1, 1))
    with pytest.raises(MemoryError):
        crew(2).work_on(phase, lambda: False)
    count = len(ended)
    assert count < 100
    time.sleep(0.01)
    assert len(ended) == count


class Refusing(ThreadPoolExecutor):
    """A pool for which the system has no thread."""

    def submit(self, call, /, *arguments, **named) -> Future:
        raise ResourceExhausted("no thread could be started", field="threads")


def test_without_a_thread_to_help_it_is_done_alone():
    done = []
    assert Crew(3, Refusing(1)).work_on(
        Phase(50, lambda first, end: done.append(end - first), Pace(4, 4)), lambda: False
    )
    assert sum(done) == 50


def test_a_helper_that_is_busy_with_another_build_is_not_waited_for(crew):
    team = crew(2)
    # Both threads of the pool.
    release = threading.Event()
    busy = [team.pool.submit(release.wait, 10) for _ in range(2)]
    assert team.work_on(Phase(50, lambda first, end: None, Pace(4, 4)), lambda: False)
    assert not any(each.done() for each in busy)
    release.set()
