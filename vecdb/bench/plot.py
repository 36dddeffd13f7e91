"""The recall/QPS curves of a run as a picture.

To the right is more recall, on an axis that gives 0.9 to 0.99 as much room as 0.99 to 0.999; upwards is more QPS, on a
logarithmic axis. A curve up and to the right is better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.bench.curve import CurvePoint, pareto
from vecdb.bench.report import MODE_TITLES
from vecdb.bench.result import RunResult
from vecdb.errors import FailedPrecondition

if TYPE_CHECKING:
    from numpy.typing import NDArray

TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
RECALL_SHOWN_MIN = 0.5
RECALL_SHOWN_MAX = 0.9999
"""A recall of 1 lies at infinity on this axis and is drawn here."""

TICK_LABELS = {RECALL_SHOWN_MAX: "1"}

STYLES: dict[str, tuple[str, str, str]] = {
    "vecdb-index": ("#b2182b", "o", "-"),
    "vecdb": ("#e34a33", "s", "-"),
    "vecdb-one-segment": ("#fc8d59", "^", "-"),
    "vecdb-served": ("#c51b7d", "D", "--"),
    "hnswlib": ("#222222", "o", "-"),
    "faiss-hnsw": ("#2166ac", "v", "-"),
    "faiss-hnsw-sq8": ("#67a9cf", "v", "--"),
    "faiss-flat": ("#2166ac", "*", ""),
    "usearch": ("#1b7837", "P", "-"),
    "svs-vamana": ("#c2a5cf", "h", "--"),
    "svs-vamana-f16": ("#762a83", "h", "-"),
    "symphonyqg": ("#b8860b", "X", "-"),
    "vsag-hgraph-sq8": ("#5aae61", "p", "-"),
    "zvec-hnsw-int8": ("#35978f", "d", "-"),
    "vecdb-compacted": ("#b2182b", "o", "-"),
    "qdrant-edge": ("#222222", "o", "-"),
    "zvec": ("#2166ac", "v", "-"),
    "zvec-vamana": ("#67a9cf", "v", "--"),
    "lancedb": ("#1b7837", "P", "-"),
    "chroma": ("#8c510a", "X", "-"),
    "milvus-lite": ("#762a83", "d", "-"),
    "sqlite-vec": ("#777777", "*", ""),
}
"""Colour, marker and line of each engine, the same in every picture."""


def draw(result: RunResult, path: Path) -> None:
    """Write the picture as PNG.

    Raises
    ------
    FailedPrecondition
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise FailedPrecondition(
            "the plot needs the package matplotlib, in vecdb's extra 'bench'", field="out", value="matplotlib"
        ) from None
    modes = result.plan.modes
    figure = Figure(figsize=(6.4 * len(modes), 5.6), dpi=120, layout="constrained")
    panels: Any = figure.subplots(1, len(modes), sharey=True, sharex=True, squeeze=False)[0]
    for panel, mode in zip(panels, modes, strict=True):
        _draw_mode(panel, result, mode)
    panels[0].set_ylabel("queries per second, one thread")
    data = result.dataset
    figure.suptitle(
        f"{data['name']}: {data['rows']:,} vectors, {data['dim']}-d, {data['metric']}; "
        f"{result.machine['cpu_model']}, {result.taken_at[:10]}",
        fontsize=11,
    )
    handles, labels = _legend_of(panels)
    if handles:
        columns = min(5, len(handles))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def _draw_mode(panel: Any, result: RunResult, mode: str) -> None:
    shown: list[float] = []
    for engine in result.engines:
        curve = [point for point in pareto(engine.curve(mode)) if point.recall >= RECALL_SHOWN_MIN]
        if engine.error is None and curve:
            colour, marker, line = STYLES.get(engine.name, ("#777777", "x", "-"))
            panel.plot(
                _across(curve), [point.qps for point in curve],
                color=colour, marker=marker, linestyle=line or "none", label=engine.name,
                linewidth=1.6, markersize=10 if not line else 4.5, markeredgewidth=0,
                zorder=3 if engine.name.startswith("vecdb") else 2,
            )  # fmt: skip
            shown.extend(_across(curve))
    panel.set_yscale("log")
    panel.set_title(MODE_TITLES[mode], fontsize=10)
    panel.set_xlabel(f"recall@{result.plan.k}")
    low, high = (min(shown), max(shown)) if shown else (0.3, 4.0)
    kept = [tick for tick in TICKS if low - 0.15 <= _place(tick) <= high + 0.15]
    panel.set_xticks([_place(tick) for tick in kept], [TICK_LABELS.get(tick, f"{tick:g}") for tick in kept])
    panel.set_xlim(low - 0.1, high + 0.1)
    panel.minorticks_off()
    panel.yaxis.set_minor_locator(_minor_ticks())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.grid(True, which="major", color="#cccccc", linewidth=0.7)
    panel.grid(True, which="minor", axis="y", color="#eeeeee", linewidth=0.5)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _minor_ticks() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=tuple(range(2, 10)))


def _legend_of(panels: Any) -> tuple[list[Any], list[str]]:
    """Each engine once, though it is drawn in several panels."""
    found: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _across(curve: list[CurvePoint]) -> list[float]:
    return [_place(point.recall) for point in curve]


def _place(recall: float) -> float:
    """Where a recall lies on the axis: the number of nines."""
    lost: NDArray[np.float64] = np.asarray(1.0 - min(recall, RECALL_SHOWN_MAX))
    return float(-np.log10(lost))
