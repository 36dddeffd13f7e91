"""vecdb: a vector database that opens a directory like SQLite and serves it over gRPC like PostgreSQL.

Names are imported when they are first used, so that ``import vecdb`` costs next to nothing and a client never loads the
engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from vecdb.version import __version__

if TYPE_CHECKING:
    from vecdb.api import Collection as Collection
    from vecdb.api import Database as Database
    from vecdb.client import connect as connect
    from vecdb.client import connect_async as connect_async
    from vecdb.engine.opening import open as open
    from vecdb.engine.options import EngineOptions as EngineOptions
    from vecdb.engine.pruning import prune_log_archive as prune_log_archive
    from vecdb.engine.restore import restore as restore
    from vecdb.engine.restore import verify_backup as verify_backup
    from vecdb.errors import VecdbError as VecdbError
    from vecdb.explanation import Explanation as Explanation
    from vecdb.filter import Field as Field
    from vecdb.filter import Filter as Filter
    from vecdb.results.backup import BackupReport as BackupReport
    from vecdb.results.hits import Hit as Hit
    from vecdb.results.hits import Hits as Hits
    from vecdb.results.points import Page as Page
    from vecdb.results.points import Point as Point
    from vecdb.results.pruning import PruneReport as PruneReport
    from vecdb.results.restore import RestoreReport as RestoreReport
    from vecdb.results.stats import CollectionStats as CollectionStats
    from vecdb.results.write import WriteResult as WriteResult
    from vecdb.schema import CollectionSchema as CollectionSchema
    from vecdb.schema import IndexKind as IndexKind
    from vecdb.schema import IndexSpec as IndexSpec
    from vecdb.schema import VectorField as VectorField
    from vecdb.types import Metric as Metric

_HOMES = {
    "BackupReport": "vecdb.results.backup",
    "Collection": "vecdb.api",
    "CollectionSchema": "vecdb.schema",
    "CollectionStats": "vecdb.results.stats",
    "Database": "vecdb.api",
    "EngineOptions": "vecdb.engine.options",
    "Explanation": "vecdb.explanation",
    "Field": "vecdb.filter",
    "Filter": "vecdb.filter",
    "Hit": "vecdb.results.hits",
    "Hits": "vecdb.results.hits",
    "IndexKind": "vecdb.schema",
    "IndexSpec": "vecdb.schema",
    "Metric": "vecdb.types",
    "Page": "vecdb.results.points",
    "Point": "vecdb.results.points",
    "PruneReport": "vecdb.results.pruning",
    "RestoreReport": "vecdb.results.restore",
    "VecdbError": "vecdb.errors",
    "VectorField": "vecdb.schema",
    "WriteResult": "vecdb.results.write",
    "connect": "vecdb.client",
    "connect_async": "vecdb.client",
    "open": "vecdb.engine.opening",
    "prune_log_archive": "vecdb.engine.pruning",
    "restore": "vecdb.engine.restore",
    "verify_backup": "vecdb.engine.restore",
}
_MODULES = frozenset({"errors"})

__all__ = [*sorted(_HOMES), "__version__", "errors"]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"vecdb.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vecdb' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
