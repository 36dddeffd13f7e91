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
from vecdb.engine.uninterrupted import uninterrupted
from vecdb.errors import FailedPrecondition, NotFound, VecdbError

Opened = TypeVar("Opened", bound=OpenCollection)
Result = TypeVar("Result")


class _Slot(Generic[Opened]):
    """One collection's place: its lock is held while it is opened or closed.

    Attributes
    ----------
    users
        A lock for each who uses it, added while it is locked and locked for as long as it is used. The interpreter
        releases a lock at the end of a ``with`` block in one step; so whatever interrupts a user, no use is left over.
    """

    __slots__ = ("lock", "opened", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened: Opened | None = None
        self.users: set[threading.Lock] = set()

    @property
    def used(self) -> bool:
        """Whether anybody uses it."""
        return any(each.locked() for each in list(self.users))

    def wait_unused(self) -> None:
        """Wait for all who use it now."""
        for each in list(self.users):
            with each:
                pass


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
        self._lock = threading.Lock()
        self._dropped: set[str] = set()
        self._closed = False

    def lease(self, collection_id: str) -> Lease[Opened]:
        """A use of the collection, for whose length it stays open."""
        return Lease(self, collection_id)

    def take(self, collection_id: str, user: threading.Lock) -> _Slot[Opened]:
        """Keep a collection open until ``user``, which is locked, is released."""
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
            slot.users.add(user)
            return slot

    def open_ids(self) -> list[str]:
        """The ids of the collections that are open or being opened."""
        with self._lock:
            return list(self._slots)

    def use_if_open(self, collection_id: str, use: Callable[[Opened], Result]) -> Result | None:
        """What ``use`` makes of the collection; ``None`` where it would have to be opened, or is gone."""
        user = threading.Lock()
        with user:
            with self._lock:
                slot = self._slots.get(collection_id)
                if self._closed or collection_id in self._dropped or slot is None or slot.opened is None:
                    return None
                self._slots.move_to_end(collection_id)
                slot.users.add(user)
            try:
                return use(self.opened(collection_id, slot))
            finally:
                slot.users.discard(user)

    def opened(self, collection_id: str, slot: _Slot[Opened]) -> Opened:
        """The collection of a slot that was taken, opened if it is not."""
        return slot.opened or self._opened(collection_id)

    @uninterrupted
    def _opened(self, collection_id: str) -> Opened:
        user = threading.Lock()
        with user:
            # A use of its own: whoever wants the collection may be interrupted, and gone before it is open. Whoever
            # closes the database waits for it, and so for what is closed to make place.
            slot = self.take(collection_id, user)
            try:
                self._close_surplus()
                with slot.lock:
                    if slot.opened is None:
                        slot.opened = self._open_one(collection_id)
                        if self._closed or collection_id in self._dropped:
                            slot.opened.begin_close()
                    return slot.opened
            finally:
                slot.users.discard(user)

    def _close_surplus(self) -> None:
        """Close collections that nobody uses until another one may be opened."""
        while True:
            with self._lock:
                if sum(each.opened is not None for each in self._slots.values()) < self._open_max:
                    return
                idle = ((key, slot) for key, slot in self._slots.items() if slot.opened is not None and not slot.used)
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
            with self._lock:
                if not surplus.used and surplus.opened is None and self._slots.get(collection_id) is surplus:
                    del self._slots[collection_id]

    def close_dropped(self, collection_id: str) -> None:
        """Wait until nobody uses the collection, then close it for good."""
        with self._lock:
            self._dropped.add(collection_id)
            slot = self._slots.get(collection_id)
            if slot is None:
                return
            if slot.opened is not None:
                slot.opened.begin_close()
        slot.wait_unused()
        with self._lock:
            if self._slots.pop(collection_id, None) is None:
                return  # Somebody else drops it too.
        with slot.lock:
            if slot.opened is not None:
                _close_reporting(collection_id, slot.opened, keep=False)

    def close_all(self) -> None:
        """Refuse further leases, wait for the present ones, close everything but what ``close_dropped`` closes."""
        with self._lock:
            self._closed = True
            for slot in self._slots.values():
                if slot.opened is not None:
                    slot.opened.begin_close()
            used = list(self._slots.values())
        for slot in used:
            slot.wait_unused()
        with self._lock:
            slots = [self._slots.pop(each) for each in list(self._slots) if each not in self._dropped]
        with ExitStack() as closing:
            # Each is closed, whatever becomes of the others.
            for slot in slots:
                if slot.opened is not None:
                    closing.callback(slot.opened.close)


class Lease(Generic[Opened]):
    """The use of an open collection, which is kept open for its length; once, by ``use`` or by a ``with`` block."""

    __slots__ = ("_collection_id", "_leases", "_opened", "_slot", "_user")

    def __init__(self, leases: Leases[Opened], collection_id: str) -> None:
        self._leases = leases
        self._collection_id = collection_id
        self._user = threading.Lock()
        self._opened: Opened | None = None
        self._slot: _Slot[Opened] | None = None

    def use(self, use: Callable[[Opened], Result]) -> Result:
        """What ``use`` makes of the collection. Wherever a signal's exception comes, the lease ends."""
        with self._user:
            try:
                # As ``_begin`` and ``_end``, which every search would call.
                slot = self._slot = self._leases.take(self._collection_id, self._user)
                opened = self._opened = slot.opened or self._leases.opened(self._collection_id, slot)
                return use(opened)
            except Exception as error:
                self._tell(error)
                raise
            finally:
                if self._slot is not None:
                    self._slot.users.discard(self._user)

    def __enter__(self) -> Opened:
        self._user.acquire()
        try:
            return self._begin()
        except BaseException:
            self._user.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._user.release()
        self._end()
        if error is not None:
            self._tell(error)

    def _begin(self) -> Opened:
        self._slot = self._leases.take(self._collection_id, self._user)
        self._opened = self._leases.opened(self._collection_id, self._slot)
        return self._opened

    def _end(self) -> None:
        """Leave nothing behind of a lease that has ended; where that is left off, it has ended all the same."""
        if self._slot is not None:
            self._slot.users.discard(self._user)

    def _tell(self, error: BaseException) -> None:
        if self._opened is not None:
            self._opened.tell_failure(error)


def _close_reporting(collection_id: str, opened: OpenCollection, *, keep: bool) -> None:
    """Close a collection for somebody whom its failure does not concern; what was not flushed is in its log."""
    try:
        opened.close(keep=keep)
    except VecdbError as error:
        logger.error("collection_not_closed_cleanly id=%s error=%s", collection_id, type(error).__name__)
