"""Counters and log lines of what happened to a collection: each event is counted and logged once, without payloads."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping

logger = logging.getLogger("vecdb")


class Events:
    """Counts by name, for one collection; ``collection`` is what log lines call it."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, name: str, times: int = 1) -> None:
        """Count an event that is too common to be logged."""
        with self._lock:
            self._counts[name] += times

    def report(self, name: str, times: int = 1, level: int = logging.WARNING, **facts: object) -> None:
        """Count an event and log it with its facts (numbers, file names; never payloads or keys)."""
        self.count(name, times)
        self.log(name, level, **facts)

    def log(self, name: str, level: int, **facts: object) -> None:
        """Log an event that is counted elsewhere."""
        told = " ".join(f"{key}={value}" for key, value in facts.items())
        logger.log(level, "%s collection=%r %s", name, self.collection, told)

    def counts(self) -> Mapping[str, int]:
        """All counts so far."""
        with self._lock:
            return dict(self._counts)
