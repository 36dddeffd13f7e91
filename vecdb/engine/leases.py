"""Which collections are open: opened on first use, closed again, least recently used first, when there are too many.

A collection that is leased is never closed under its user.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, TypeVar

from vecdb.engine.events import logger
from vecdb.engine.store import OpenCollection
from vecdb.errors import FailedPrecondition, NotFound, VecdbError

Opened = TypeVar("Opened", bound=OpenCollection)
Result = TypeVar("Result")


class _Slot(Generic[Opened]):
    """One collection's place: its lock is held while it is opened or closed."""

    __slots__ = ("leases", "lock", "opened")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened: Opened | None = None
        self.leases = 0


class Leases(Generic[Opened]):
    """The open collections of one database.

    Parameters
    ----------
    open_max
        How many may be open; more only while more are leased at once.
    open_one
        Opens a collection by its id.
    """

    def __init__(self, open_max: int, open_one: Callable[[str], Opened]) -> None:
        self._open_max = open_max
        self._open_one = open_one
        self._slots: OrderedDict[str, _Slot[Opened]] = OrderedDict()
        # The lock itself where nobody waits: every request passes here twice.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._dropped: set[str] = set()
        self._closed = False

    def lease(self, collection_id: str) -> Lease[Opened]:
        """A block for whose length the collection stays open."""
        return Lease(self, collection_id)

    def take(self, collection_id: str) -> _Slot[Opened]:
        """Keep a collection open until its slot is given back; for ``Lease``."""
        with self._lock:
            if self._closed:
                raise FailedPrecondition("the database is closed", field="database")
            if collection_id in self._dropped:
                raise NotFound("the collection was dropped", field="collection", value=collection_id)
            slot = self._slots.get(collection_id)
            if slot is None:
                slot = self._slots[collection_id] = _Slot()
            else:
                self._slots.move_to_end(collection_id)
            slot.leases += 1
            return slot

    def open_ids(self) -> list[str]:
        """The ids of the collections that are open or being opened."""
        with self._lock:
            return list(self._slots)

    def use_if_open(self, collection_id: str, use: Callable[[Opened], Result]) -> Result | None:
        """What ``use`` makes of the collection; ``None`` where it would have to be opened, or is gone."""
        with self._lock:
            slot = self._slots.get(collection_id)
            if self._closed or collection_id in self._dropped or slot is None or slot.opened is None:
                return None
            self._slots.move_to_end(collection_id)
            slot.leases += 1
        try:
            return use(self.opened(collection_id, slot))
        finally:
            self.give_back(slot)

    def give_back(self, slot: _Slot[Opened]) -> None:
        """End what ``take`` began."""
        with self._lock:
            slot.leases -= 1
            if slot.leases == 0:
                self._changed.notify_all()

    def opened(self, collection_id: str, slot: _Slot[Opened]) -> Opened:
        """The collection of a slot that was taken, opened if it is not."""
        return slot.opened or self._opened(collection_id, slot)

    def _opened(self, collection_id: str, slot: _Slot[Opened]) -> Opened:
        self._close_surplus()
        with slot.lock:
            if slot.opened is None:
                slot.opened = self._open_one(collection_id)
                if self._closed or collection_id in self._dropped:
                    slot.opened.begin_close()
            return slot.opened

    def _close_surplus(self) -> None:
        """Close collections that nobody uses until another one may be opened."""
        while True:
            with self._changed:
                if sum(each.opened is not None for each in self._slots.values()) < self._open_max:
                    return
                idle = (
                    (key, slot) for key, slot in self._slots.items() if slot.opened is not None and slot.leases == 0
                )
                collection_id, surplus = next(idle, ("", None))
                if surplus is None or not surplus.lock.acquire(blocking=False):
                    return
                # Whoever asks for it from now on finds it closed, waits for the slot's lock and opens it again.
                opened, surplus.opened = surplus.opened, None
            try:
                if opened is not None:
                    _close_reporting(collection_id, opened, keep=True)
            finally:
                surplus.lock.release()
            with self._changed:
                if surplus.leases == 0 and surplus.opened is None and self._slots.get(collection_id) is surplus:
                    del self._slots[collection_id]

    def close_dropped(self, collection_id: str) -> None:
        """Wait until nobody uses the collection, then close it for good."""
        with self._changed:
            self._dropped.add(collection_id)
            slot = self._slots.get(collection_id)
            if slot is None:
                return
            if slot.opened is not None:
                slot.opened.begin_close()
            while slot.leases:
                self._changed.wait()
            if self._slots.pop(collection_id, None) is None:
                return  # Somebody else drops it too.
        with slot.lock:
            if slot.opened is not None:
                _close_reporting(collection_id, slot.opened, keep=False)

    def close_all(self) -> None:
        """Refuse further leases, wait for the present ones, close everything but what ``close_dropped`` closes."""
        with self._changed:
            self._closed = True
            for slot in self._slots.values():
                if slot.opened is not None:
                    slot.opened.begin_close()
            while any(slot.leases for slot in self._slots.values()):
                self._changed.wait()
            slots = [self._slots.pop(each) for each in list(self._slots) if each not in self._dropped]
        with ExitStack() as closing:
            # Each is closed, whatever becomes of the others.
            for slot in slots:
                if slot.opened is not None:
                    closing.callback(slot.opened.close)


class Lease(Generic[Opened]):
    """A block that has an open collection, and keeps it open."""

    __slots__ = ("_collection_id", "_leases", "_slot")

    def __init__(self, leases: Leases[Opened], collection_id: str) -> None:
        self._leases = leases
        self._collection_id = collection_id

    def __enter__(self) -> Opened:
        slot = self._slot = self._leases.take(self._collection_id)
        try:
            return self._leases.opened(self._collection_id, slot)
        except BaseException:
            self._leases.give_back(slot)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self._slot.opened
        self._leases.give_back(self._slot)
        if error is not None and opened is not None:
            opened.tell_failure(error)


def _close_reporting(collection_id: str, opened: OpenCollection, *, keep: bool) -> None:
    """Close a collection for somebody whom its failure does not concern; what was not flushed is in its log."""
    try:
        opened.close(keep=keep)
    except VecdbError as error:
        logger.error("collection_not_closed_cleanly id=%s error=%s", collection_id, type(error).__name__)
