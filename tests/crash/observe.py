"""Everything that can be asked of a collection, and the comparison of the answers with a model in plain NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.crash.history import BODY, GROUPS, METRICS, TITLE, State, ids_of
from vecdb.api import Collection
from vecdb.results.hits import Hits
from vecdb.types import F32Array, Metric, PointId

K_MAX = 1_000
QUERIES = 2

Wanted = tuple[str, int | None, int, float | None]
"""Field, group to filter by, k, recall (None: exact)."""

SEARCHES: tuple[Wanted, ...] = (
    (BODY, None, K_MAX, None),
    (TITLE, None, K_MAX, None),
    (BODY, 1, 7, None),
    (TITLE, 2, 7, None),
    (BODY, None, 5, 0.95),
    (BODY, 3, K_MAX, 0.95),
    (TITLE, None, 5, 0.95),
)


@dataclass(frozen=True)
class Ranking:
    """What a search gave: ids, natural distances, and the payload and vectors of the first hit."""

    ids: list[PointId]
    distances: list[float]
    first: tuple[dict[str, Any] | None, Mapping[str, F32Array]] | None


@dataclass(frozen=True)
class Observation:
    """The answers of one collection."""

    scrolled: list[tuple[PointId, dict[str, Any] | None, Mapping[str, F32Array]]]
    got: list[tuple[PointId, dict[str, Any] | None, Mapping[str, F32Array]]]
    count: int
    counts_of_groups: list[int]
    rankings: dict[Wanted, list[Ranking]]
    strategies: set[str]
    last_seq: int
    graphs: int
    segments: int
    events: Mapping[str, int]


def queries_of(field: str) -> F32Array:
    """The queries asked of a field: always the same."""
    dim = {BODY: 8, TITLE: 4}[field]
    return np.random.default_rng(77).standard_normal((QUERIES, dim)).astype(np.float32)


def observe(collection: Collection, writers: Sequence[int]) -> Observation:
    """Ask everything."""
    known = [each for writer in writers for each in ids_of(writer)]
    rankings = {}
    strategies: set[str] = set()
    for wanted in SEARCHES:
        field, group, k, recall = wanted
        found = collection.search_batch(
            queries_of(field),
            k,
            field=field,
            where=None if group is None else "group = :group",
            params=None if group is None else {"group": group},
            recall="exact" if recall is None else recall,
            with_vectors=True,
        )
        rankings[wanted] = [_ranking(hits) for hits in found]
        strategies.update(part for hits in found for part in hits.strategy.split("+"))
    stats = collection.stats()
    return Observation(
        [(each.id, each.payload, each.vectors) for each in collection.scroll(with_vectors=True, page_rows=17)],
        [(each.id, each.payload, each.vectors) for each in collection.get(known, with_vectors=True)],
        collection.count(),
        [collection.count("group = :group", params={"group": group}) for group in range(GROUPS)],
        rankings,
        strategies,
        stats.last_seq,
        stats.role_bytes.get("graph", 0),
        stats.segments,
        dict(stats.events),
    )


def _ranking(hits: Hits) -> Ranking:
    assert hits.complete
    first = (hits[0].payload, dict(hits[0].vectors)) if len(hits) else None
    return Ranking(list(hits.ids), [float(each) for each in hits.distances], first)


def differences(observed: Observation, state: State) -> list[str]:
    """What differs between the answers and the model, in words; empty where nothing does."""
    found = list(_point_differences("scroll", observed.scrolled, state))
    found += _point_differences("get", observed.got, state)
    if observed.count != len(state):
        found.append(f"count() is {observed.count}, not {len(state)}")
    for group, count in enumerate(observed.counts_of_groups):
        wanted = sum(stored.payload["group"] == group for stored in state.values())
        if count != wanted:
            found.append(f"count(group = {group}) is {count}, not {wanted}")
    for wanted, rankings in observed.rankings.items():
        for query, ranking in zip(queries_of(wanted[0]), rankings, strict=True):
            found += [f"search {wanted}: {each}" for each in _ranking_differences(wanted, query, ranking, state)]
    return found


def _point_differences(
    verb: str, points: Sequence[tuple[PointId, dict[str, Any] | None, Mapping[str, F32Array]]], state: State
) -> list[str]:
    ids = [each for each, _, _ in points]
    found = []
    if len(set(ids)) != len(ids):
        found.append(f"{verb} gives ids twice: {sorted({str(each) for each in ids if ids.count(each) > 1})}")
    if set(ids) - state.keys():
        found.append(f"{verb} gives ids that must not be there: {sorted(map(str, set(ids) - state.keys()))}")
    if state.keys() - set(ids):
        found.append(f"{verb} lacks ids: {sorted(map(str, state.keys() - set(ids)))}")
    for each, payload, vectors in points:
        if each in state:
            if payload != state[each].payload:
                found.append(f"{verb} gives the payload {payload} of {each!r}, not {state[each].payload}")
            if not same_vectors(vectors, state[each].vectors):
                found.append(f"{verb} gives other vectors of {each!r}")
    return found


def same_vectors(found: Mapping[str, F32Array], wanted: Mapping[str, F32Array]) -> bool:
    """Whether the vectors are those given, to float32 rounding."""
    # As np.allclose, which takes ten times as long for a vector: it is asked of every row after every fault.
    return found.keys() == wanted.keys() and all(
        bool((np.abs(found[name] - wanted[name]) <= 1e-6 + 1e-5 * np.abs(wanted[name])).all()) for name in wanted
    )


def natural_distances(vectors: F32Array, query: F32Array, metric: Metric) -> F32Array:
    """(n,) float64: the natural distance of each row."""
    rows, wanted = np.asarray(vectors, np.float64), np.asarray(query, np.float64)
    if metric is Metric.L2:
        return np.linalg.norm(rows - wanted, axis=1)
    if metric is Metric.DOT:
        return rows @ wanted
    return 1.0 - rows @ wanted / (np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted))


def _ranking_differences(wanted: Wanted, query: F32Array, ranking: Ranking, state: State) -> list[str]:
    field, group, k, recall = wanted
    allowed = {
        each: stored
        for each, stored in state.items()
        if field in stored.vectors and (group is None or stored.payload["group"] == group)
    }
    found = ranking_differences(
        ranking.ids,
        ranking.distances,
        {each: stored.vectors[field] for each, stored in allowed.items()},
        query,
        METRICS[field],
        k,
        exact=recall is None,
    )
    if not found and ranking.first is not None:
        payload, vectors = ranking.first
        stored = state[ranking.ids[0]]
        if payload != stored.payload or not same_vectors(vectors, stored.vectors):
            found.append(f"the first hit {ranking.ids[0]!r} has another payload or vector")
    return found


def ranking_differences(
    ids: Sequence[PointId],
    distances: Sequence[float],
    allowed: Mapping[PointId, F32Array],
    query: F32Array,
    metric: Metric,
    k: int,
    *,
    exact: bool,
) -> list[str]:
    """What is wrong with a ranking over the ``allowed`` vectors."""
    if len(ids) != min(k, len(allowed)):
        return [f"{len(ids)} hits, not {min(k, len(allowed))}"]
    if len(set(ids)) != len(ids) or set(ids) - allowed.keys():
        return [f"hits are repeated or not allowed: {sorted(map(str, set(ids) - allowed.keys()))}"]
    if not ids:
        return []
    true = dict(zip(allowed, natural_distances(np.array(list(allowed.values())), query, metric), strict=True))
    mine = np.array([true[each] for each in ids])
    found = []
    if not np.allclose(mine, distances, rtol=1e-4, atol=1e-4):
        found.append(f"distances {distances} are not {mine.tolist()}")
    sign = -1.0 if metric is Metric.DOT else 1.0
    if any(sign * later < sign * earlier for earlier, later in itertools.pairwise(distances)):
        found.append("hits are out of order")
    if exact:
        best = np.sort(sign * np.array(list(true.values())))[: len(ids)] * sign
        if not np.allclose(mine, best, rtol=1e-4, atol=1e-4):
            found.append(f"the nearest are at {best.tolist()}, found were {mine.tolist()}")
    return found
