"""The requests that were applied lately, so that a retry is answered and not applied again.

Kept for 10 minutes or 100,000 requests a collection, whichever is less; on disk as well as in memory.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable

from vecdb.engine.log_record import AppliedRequest
from vecdb.errors import InvalidArgument

KEPT_US = 10 * 60 * 1_000_000
KEPT_REQUESTS_MAX = 100_000


class AppliedRequests:
    """Applied requests by id, oldest first."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, AppliedRequest] = OrderedDict()
        self._replaced: list[AppliedRequest] = []
        self._lock = threading.Lock()

    def find(self, request_id: str, digest: int, now_us: int) -> AppliedRequest | None:
        """The request applied under this id, ``None`` where there is none.

        Raises
        ------
        InvalidArgument
            The id was used for a request with another content.
        """
        with self._lock:
            known = self._by_id.get(request_id)
        if known is None or known.time_us < now_us - KEPT_US:
            return None
        require_same_content(known, digest)
        return known

    def add(self, request: AppliedRequest) -> None:
        """Remember an applied request."""
        with self._lock:
            replaced = self._by_id.pop(request.request_id, None)
            if replaced is not None:
                self._replaced.append(replaced)
            self._by_id[request.request_id] = request

    def up_to(self, seq: int) -> tuple[AppliedRequest, ...]:
        """Those that made a write at or below ``seq``, in the order of their writes."""
        with self._lock:
            # One that changed nothing has the seq of another write, and is remembered in memory only.
            made = [each for each in self._by_id.values() if each.seq <= seq and (each.upserted or each.deleted)]
        return tuple(sorted(made, key=lambda each: each.seq))

    def expired(self, now_us: int) -> list[AppliedRequest]:
        """What is too old or too many, or was replaced by a later request of the same id: to be forgotten."""
        with self._lock:
            surplus = len(self._by_id) - KEPT_REQUESTS_MAX
            old = itertools.takewhile(
                lambda numbered: numbered[0] < surplus or numbered[1].time_us < now_us - KEPT_US,
                enumerate(self._by_id.values()),
            )
            return [*self._replaced, *(request for _, request in old)]

    def forget(self, requests: Iterable[AppliedRequest]) -> None:
        """Forget what ``expired`` told, once it is gone from the disk."""
        with self._lock:
            for request in requests:
                if request in self._replaced:
                    self._replaced.remove(request)
                elif self._by_id.get(request.request_id) is request:
                    del self._by_id[request.request_id]


def require_same_content(known: AppliedRequest, digest: int) -> None:
    """Raise InvalidArgument where a request whose content has this digest is not the one applied under its id."""
    if known.digest != digest:
        raise InvalidArgument(
            f"request_id {known.request_id!r} was used for another request (seq {known.seq}); "
            "ids name one request only",
            field="request_id",
            value=known.request_id,
        )
