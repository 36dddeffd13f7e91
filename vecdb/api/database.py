"""The Database that a user holds, embedded or served; its verbs are made as those of ``vecdb.api.collection``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vecdb.api.collection import Collection
from vecdb.arguments import schema_of
from vecdb.errors import NotFound
from vecdb.requests import SearchRequest
from vecdb.results.backup import BackupReport
from vecdb.results.hits import Hits
from vecdb.results.warming import WarmReport
from vecdb.schema import CollectionSchema, IndexSpec
from vecdb.types import Metric


class Database(ABC):
    """A set of collections: a directory opened in this process, or a server's.

    Safe to use from many threads. Use it in a ``with`` statement, or call ``close``.
    """

    def create_collection(
        self,
        name: str,
        dim: int | None = None,
        metric: Metric | str | None = None,
        index: IndexSpec | str | None = None,
        *,
        schema: CollectionSchema | None = None,
        exist_ok: bool = False,
    ) -> Collection:
        """Make a collection of one vector field (``dim``, ``metric``, ``index``) or of a whole ``schema``.

        Parameters
        ----------
        dim
            Dimensions of the unnamed vector field.
        metric
            ``"cosine"`` (default), ``"dot"`` or ``"l2"``.
        index
            ``"auto"`` (default), ``"flat"``, ``"hnsw"``, or an ``IndexSpec``.
        schema
            Instead of the three above: named vector fields.
        exist_ok
            Return the existing collection where its schema is the same.

        Raises
        ------
        AlreadyExists
            The name is taken (with ``exist_ok``: by a collection of another schema).
        InvalidArgument
            A bad name or schema.
        """
        return self.run_create(name, schema_of(dim, metric, index, schema), exist_ok)

    @abstractmethod
    def run_create(self, name: str, schema: CollectionSchema, exist_ok: bool) -> Collection:
        """Make the collection."""

    @abstractmethod
    def collection(self, name: str) -> Collection:
        """The collection called ``name``; raises NotFound."""

    def run_search_at_once(self, name: str, collection_id: str, request: SearchRequest) -> list[Hits] | None:
        """The rankings if all that the search needs is open and verified, else ``None`` at once; for event loops.

        ``None`` wherever the search would wait for a file, another thread or a write, or where there is no collection
        of this name and (unless empty) this id: ``run_search`` then tells.
        """
        del name, collection_id, request
        return None

    @abstractmethod
    def collections(self) -> Sequence[str]:
        """The names of all collections, sorted."""

    @abstractmethod
    def drop_collection(self, name: str) -> None:
        """Remove the collection and its files; raises NotFound."""

    def warm(self, *, with_vectors: bool = False) -> WarmReport:
        """``Collection.warm`` of one collection after the other; one that is dropped meanwhile is left out."""
        reports = []
        for name in self.collections():
            with suppress(NotFound):
                reports.append(self.collection(name).warm(with_vectors=with_vectors))
        return WarmReport.of_all(reports)

    @abstractmethod
    def backup(
        self,
        target: str | Path | BinaryIO,
        *,
        since: str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> BackupReport:
        """Write all collections into one file, while reads and writes go on.

        Each collection is in it as of one write, told in the report: every write that was acknowledged before its turn
        and none after it. Collections are taken one after the other, so that two of them may be of different moments.
        ``vecdb.restore`` makes a database of the file. What is interrupted leaves nothing under the file's name.

        Parameters
        ----------
        target
            A new file, or a binary file object that is open for writing: it is written front to back, so that it may be
            a pipe.
        since
            An earlier backup file of this database. What that one holds, or refers to, is not stored again; restoring
            then needs it too.
        progress
            Called with the number of bytes written since it was last called.

        Raises
        ------
        AlreadyExists
            There is a file ``target``; a backup replaces none.
        Corruption
            A file of the database is damaged: it is named, and there is no backup. Or ``since`` is damaged.
        InvalidArgument
            ``since`` is of another database.
        ResourceExhausted
            No space: for the backup, or for flushing what is in memory.
        """

    @abstractmethod
    def run_backup(self, since_manifest: bytes) -> Generator[bytes, None, bytes]:
        """The bytes of a backup, piece by piece; it returns the manifest that they end in.

        Files of the database are kept until it is exhausted or closed; closing the database waits for that.

        Parameters
        ----------
        since_manifest
            The manifest of the backup before; empty for a full one.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop background work and release the directory or the connection. A closed database refuses every call."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
