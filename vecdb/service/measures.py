"""What a server has done: requests, errors and time by method. Counts only grow; reading them takes no lock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class MethodMeasure:
    """What became of the requests of one method.

    Attributes
    ----------
    requests
        Requests that ended.
    errors
        Those that failed, by code of the error.
    total_s, longest_s
        Time from the first byte of the request to the end of the reply.
    short
        Searches expected to be short, which took no thread of the pool.
    """

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    total_s: float = 0.0
    longest_s: float = 0.0
    short: int = 0


class Measures:
    """Counters of a server.

    Attributes
    ----------
    methods
        By name of the method.
    running
        Requests under way.
    """

    def __init__(self, methods: tuple[str, ...]) -> None:
        self.methods = {name: MethodMeasure() for name in methods}
        self.running = 0

    def record(self, method: str, code: str | None, seconds: float) -> None:
        """Note the end of a request; ``code`` is that of its error."""
        measure = self.methods[method]
        measure.requests += 1
        measure.total_s += seconds
        measure.longest_s = max(measure.longest_s, seconds)
        if code is not None:
            measure.errors[code] += 1

    def __str__(self) -> str:
        """One line for a log."""
        parts = [
            f"{name} {each.requests} ({each.errors.total()} failed, {1e3 * each.total_s / each.requests:.2f} ms)"
            for name, each in self.methods.items()
            if each.requests
        ]
        return ", ".join(parts) or "no requests"
