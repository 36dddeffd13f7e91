"""How an error looks on standard error: one line for a person, one JSON object for a machine."""

from __future__ import annotations

import json
import sys

from vecdb.cli.terminal import printable
from vecdb.errors import VecdbError


def tell(error: VecdbError, *, as_json: bool) -> None:
    """Write ``error`` to standard error."""
    sys.stderr.write((json.dumps(as_object(error)) if as_json else as_line(error)) + "\n")


def as_object(error: VecdbError) -> dict[str, object]:
    """The error with all it knows, under one key."""
    facts = {name: getattr(error, name) for name in ("field", "limit", "value", "position")}
    return {"error": {"code": error.code, "message": error.message, **facts}}


def as_line(error: VecdbError) -> str:
    """The message, which is complete by itself, on one line without control characters."""
    return f"vecdb: {printable(error.message)}"
