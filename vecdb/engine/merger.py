"""One merge: a new segment is written and indexed beside several others, and put in their place.

The rows that are kept are those that were live as of the last flush, so that segments and journals go on telling, of
each id, the last write or delete that is flushed. Only the last, short step keeps flushes out and runs between two
groups of writes: the rows that died meanwhile are dead in the new segment too, found by the place that each kept row
had. One commit puts the new segment in the place of the old ones.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from vecdb.bitmap import Bitmap, LiveRows
from vecdb.engine.applied import KEPT_US
from vecdb.engine.indexing import build_graph, lacking_graphs
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import Manifest
from vecdb.engine.merge_room import MergePart, may_have_reserve
from vecdb.engine.state import CollectionState
from vecdb.engine.writer import Writer
from vecdb.errors import Corruption, ResourceExhausted
from vecdb.index.hnsw import Crew, LentGraph
from vecdb.schema import VectorField
from vecdb.segment.journal import Deletes, requests_of
from vecdb.segment.lending import lent_graph
from vecdb.segment.merge import Merge, MergeSource, all_deletes, kept_deletes, write_merged
from vecdb.segment.reader import SegmentReader
from vecdb.segment.writer import SegmentWriter
from vecdb.types import I64Array


class Merger:
    """Merges segments of one collection.

    Parameters
    ----------
    damaged
        The numbers of segments that cannot be read, as they are known by then.
    crew
        Builds the graphs of new segments.
    """

    def __init__(self, state: CollectionState, writer: Writer, damaged: Collection[int], crew: Crew) -> None:
        self._state = state
        self._crew = crew
        self._writer = writer
        self._damaged = damaged

    def parts(self, group: Collection[int]) -> list[MergePart]:
        """What would be merged."""
        stored = self._state.stored_live
        entries = [segment.reader.entry for segment in self._state.view.segments]
        return [MergePart(each, stored[each.segment_id].count()) for each in entries if each.segment_id in group]

    def merge(self, group: Collection[int]) -> int:
        """Put one segment in the place of several; the number of dead rows that are gone."""
        state = self._state
        state.check_not_stopped()
        stored = state.stored_live
        chosen = [each for each in state.view.segments if each.reader.segment_id in group]
        others = [each.reader for each in state.view.segments if each.reader.segment_id not in group]
        spends_reserve = may_have_reserve(state, self.parts(group))
        merge = Merge(
            [MergeSource(each.reader, stored[each.reader.segment_id].bitmap().rows()) for each in chosen],
            self._kept_deletes([each.reader for each in chosen], others),
            _remembered(each.reader for each in chosen),
        )
        writer, reader = (
            state.spending_reserve(lambda: self._written(merge)) if spends_reserve else self._written(merge)
        )
        self._replace({source.reader.segment_id: source.rows for source in merge.sources}, writer, reader)
        return sum(each.rows for each in chosen) - merge.rows

    def _kept_deletes(self, sources: Sequence[SegmentReader], others: Sequence[SegmentReader]) -> Deletes:
        """The deletes that the new segment has to tell of; all of them where what others hold cannot be read."""
        if any(each.segment_id in self._damaged for each in others):
            return all_deletes(sources)
        return kept_deletes(sources, others, self._state.manifest.hash_key)

    def _written(self, merge: Merge) -> tuple[SegmentWriter, SegmentReader | None]:
        """The new segment, indexed and verified, and its writer; ``None`` where there is nothing to keep."""
        state = self._state
        writer = SegmentWriter(state.directory, state.take_segment_id(), state.manifest.schema)
        if not merge.rows and not merge.deletes.keys and not merge.requests:
            return writer, None
        try:
            return writer, self._write(writer, merge)
        except BaseException:
            writer.abandon()
            raise

    def _write(self, writer: SegmentWriter, merge: Merge) -> SegmentReader:
        """What searches read is open in the end, so that the first of them finds it done."""
        state = self._state
        schema = state.manifest.schema
        entry = write_merged(writer, merge, schema, state.kernels, state.check_not_closing)
        reader = state.open_segment(entry)
        for declared in lacking_graphs(entry, schema, state.options):
            lent = self._lent(merge, declared)
            file = build_graph(state, reader, declared, writer, state.check_not_closing, self._crew, lent)
            reader.attach(file)
        for file in reader.entry.files:
            state.check_not_closing()
            reader.files.array_file(file.role, file.field).verify()
        for name in reader.field_names if reader.rows else ():
            field = reader.field(name)
            _ = field.graph if field.has_graph else field.codes
        return reader

    def _lent(self, merge: Merge, declared: VectorField) -> LentGraph | None:
        """The graph to go on from; a damaged one is told of, and replaced by one that needs none."""
        try:
            return lent_graph(merge.sources, declared)
        except Corruption as error:
            self._state.tell_damage(error)
            return None

    def _replace(self, kept: Mapping[int, I64Array], writer: SegmentWriter, reader: SegmentReader | None) -> None:
        """Commit and publish the new segment in the place of those of which these rows were kept."""
        state = self._state
        with state.replacing:
            live: dict[int, LiveRows] = {}
            if reader is not None:
                stored = [state.stored_live[number].bitmap().contains(rows) for number, rows in kept.items()]
                live[reader.segment_id] = LiveRows.from_bitmap(Bitmap.from_bools(np.concatenate(stored)))

            def change(manifest: Manifest) -> Manifest:
                left = manifest.without_segments(kept)
                return left if reader is None else left.with_segment(reader.entry)

            def swap() -> None:
                for waiting, view in state.sealed_views.items():
                    state.sealed_views[waiting] = view.merged(kept, reader)
                state.publish(state.view.merged(kept, reader))

            try:
                state.commit(change, live)
            except ResourceExhausted:
                # Nothing changed. After any other failure the files may be named.
                writer.abandon()
                raise

            try:
                self._writer.run(swap).result()
            except BaseException as error:
                # It is committed, and the view is not what the metadata says.
                state.stop_writing(error)
                raise


def _remembered(readers: Iterable[SegmentReader]) -> list[bytes]:
    """The requests in the journals of segments that are still to be answered when they are repeated."""
    oldest_us = time.time_ns() // 1000 - KEPT_US
    requests = (encoded for reader in readers for encoded in requests_of(reader))
    return [encoded for encoded in requests if AppliedRequest.decode(encoded).time_us >= oldest_us]
