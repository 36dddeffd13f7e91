"""The requests that were applied lately, so that a retry is answered and not applied again.

Kept for 10 minutes or 100,000 requests a collection, whichever is less; on disk as well as in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from vecdb.engine.log_record import AppliedRequest
from vecdb.errors import InvalidArgument

KEPT_US = 10 * 60 * 1_000_000
KEPT_REQUESTS_MAX = 100_000


class AppliedRequests:
    """Applied requests by id, oldest first."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, AppliedRequest] = OrderedDict()
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
            self._by_id[request.request_id] = request
            self._by_id.move_to_end(request.request_id)

    def expire(self, now_us: int) -> list[AppliedRequest]:
        """Forget what is too old or too many, and return it."""
        gone: list[AppliedRequest] = []
        with self._lock:
            while self._by_id:
                oldest = next(iter(self._by_id.values()))
                if len(self._by_id) <= KEPT_REQUESTS_MAX and oldest.time_us >= now_us - KEPT_US:
                    break
                gone.append(self._by_id.popitem(last=False)[1])
        return gone


def require_same_content(known: AppliedRequest, digest: int) -> None:
    """Raise InvalidArgument where a request whose content has this digest is not the one applied under its id."""
    if known.digest != digest:
        raise InvalidArgument(
            f"request_id {known.request_id!r} was used for another request (seq {known.seq}); "
            "ids name one request only",
            field="request_id",
            value=known.request_id,
        )
