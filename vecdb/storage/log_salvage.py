"""What is left of a damaged log: the records up to its first hole, which are kept, and what lies behind, which is not.

A record behind a hole cannot be applied, for it was decided in the light of those that are gone. Cutting replaces one
file by a whole one, atomically, and moves the files behind it away; interrupted, it is begun again from what is there.
Format: ``docs/formats/log.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from vecdb.errors import Corruption, FailedPrecondition, VecdbError
from vecdb.storage.checksum import random_id
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.storage.log_format import (
    HEADER_BYTES,
    KIND_DATA,
    KIND_END,
    RECORD_HEADER_BYTES,
    LogHeader,
    LogName,
    Predecessor,
    encode_record,
    padded,
)
from vecdb.storage.log_reader import log_files
from vecdb.storage.log_scan import LogScan, read_header
from vecdb.storage.wal import Log

_FILE_ID_AT: Final = slice(16, 24)
_PREDECESSOR_AT: Final = (slice(48, 56), slice(56, 64))

Decode = Callable[[int, bytes], object]
"""Decodes the payload of a record, by its seq; raises Corruption where it cannot be."""


@dataclass(frozen=True, slots=True)
class LogCut:
    """How a damaged log becomes a whole one again.

    Attributes
    ----------
    reason
        The damage that was met first.
    kept_seq
        The last record that is kept.
    lost_seq
        The last one of which there is a trace; ``kept_seq`` where there is none beyond it.
    replaced
        Names of files and what is to be in them.
    removed
        Names of files that are to go, the last one first.
    """

    reason: Corruption
    kept_seq: int
    lost_seq: int
    replaced: tuple[tuple[str, bytes], ...]
    removed: tuple[str, ...]

    def carry_out(self, directory: MmapDirectory, quarantine: MmapDirectory) -> None:
        """Cut the log; what is replaced or removed goes to ``quarantine``."""
        for name, content in self.replaced:
            quarantine.replace_file(name, directory.read_file(name, 1 << 40))
            directory.replace_file(name, content)
        for name in self.removed:
            directory.move(name, quarantine)


def examine_log(directory: MmapDirectory, flushed_seq: int, decode: Decode) -> LogCut | None:
    """How the log in a directory is to be cut; None where nothing is wrong with it.

    Raises
    ------
    FailedPrecondition
        A file is of a later format.
    """
    try:
        log = Log(directory)
        log.check(flushed_seq)
        for seq, data in log.replay(flushed_seq):
            decode(seq, data)
    except FailedPrecondition:
        raise
    except VecdbError as error:
        return _Salvage(directory, decode).cut(flushed_seq, Corruption(error.message, field=error.field))
    return None


class _Salvage:
    def __init__(self, directory: MmapDirectory, decode: Decode) -> None:
        self._directory = directory
        self._decode = decode
        self._replaced: list[tuple[str, bytes]] = []
        self._lost_seq = 0

    def cut(self, flushed_seq: int, reason: Corruption) -> LogCut:
        files = log_files(self._directory)
        begun = [number for number, file in enumerate(files) if file.first_seq <= flushed_seq + 1]
        first = begun[-1] if begun else 0
        removed = [file.name for file in files[:first] if not self._sound(file)]
        kept_seq, kept = flushed_seq, first
        if begun:
            kept_seq, kept = self._keep(files, first)
        for file in files[kept:]:
            removed.append(file.name)
            self._lost_seq = max(self._lost_seq, file.first_seq - 1, self._last_trace(file))
        kept_seq = max(flushed_seq, kept_seq)
        return LogCut(reason, kept_seq, max(kept_seq, self._lost_seq), tuple(self._replaced), tuple(reversed(removed)))

    def _keep(self, files: list[LogName], first: int) -> tuple[int, int]:
        """Walk from the first file that is needed to the hole; the last seq kept and the number of files kept."""
        last_seq = files[first].first_seq - 1
        before: LogHeader | None = None
        end = 0
        for number in range(first, len(files)):
            following = files[number + 1] if number + 1 < len(files) else None
            with self._directory.open_reader(files[number].name) as reader:
                header, sound = self._header(reader, files[number], following)
                chained = header is not None and (
                    before is None
                    or (
                        header.ordinal == before.ordinal + 1
                        and header.first_seq == last_seq + 1
                        and (not sound or header.predecessor == Predecessor(before.file_id, end))
                    )
                )
                if header is None or not chained:
                    return last_seq, number
                if before is not None:
                    header = replace(header, predecessor=Predecessor(before.file_id, end))
                scan = LogScan(reader, header)
                records: list[tuple[int, bytes]] = []
                whole = self._scan(scan, self._valid_end(header, following), records)
                last_seq = records[-1][0] if records else header.first_seq - 1
                if not whole:
                    traces = [each.seq for each in scan.whole_records_behind(scan.offset - RECORD_HEADER_BYTES)]
                    self._lost_seq = max([self._lost_seq, *traces])
                    self._replaced.append((header.name, _content(header, records)))
                    return last_seq, number + 1
                if not sound:
                    rest = reader.pread(reader.size_bytes - HEADER_BYTES, HEADER_BYTES)
                    self._replaced.append((header.name, header.encode() + rest))
            before, end = header, scan.offset
        return last_seq, len(files)

    def _scan(self, scan: LogScan, valid_end: int | None, records: list[tuple[int, bytes]]) -> bool:
        """Collect the records up to the first that is damaged; whether there was none."""
        try:
            for seq, data in scan.records(valid_end):
                self._decode(seq, data)
                records.append((seq, data))
        except VecdbError:
            return False
        return True

    def _valid_end(self, header: LogHeader, following: LogName | None) -> int | None:
        """Where the records end, as the next file says, if it does."""
        if following is None or not self._sound(following):
            return None
        told = self._strict_header(following)
        return told.predecessor.valid_end if told.predecessor.file_id == header.file_id else None

    def _sound(self, file: LogName) -> bool:
        """Whether a file has a whole header."""
        try:
            self._strict_header(file)
        except FailedPrecondition:
            raise
        except VecdbError:
            return False
        return True

    def _strict_header(self, file: LogName) -> LogHeader:
        with self._directory.open_reader(file.name) as reader:
            return read_header(reader, file.name)

    def _header(self, reader: FileReader, file: LogName, following: LogName | None) -> tuple[LogHeader | None, bool]:
        """The header of a file, and whether it is whole: a damaged one is made up for where a record proves it."""
        data = reader.pread(min(HEADER_BYTES, reader.size_bytes), 0)
        try:
            return LogHeader.decode(data, str(reader.path), file.name), True
        except FailedPrecondition:
            raise
        except VecdbError:
            pass  # What follows tries to do without it.
        for file_id in self._file_ids(data, following):
            before = Predecessor(*(int.from_bytes(data[at], "little") for at in _PREDECESSOR_AT))
            header = LogHeader(file_id, file.ordinal, file.first_seq, reader.size_bytes, before)
            if next(LogScan(reader, header).whole_records_behind(0), None) is not None:
                return header, False
        return None, False

    def _file_ids(self, data: bytes, following: LogName | None) -> Iterator[int]:
        """What the id of a file with a damaged header may be."""
        yield int.from_bytes(data[_FILE_ID_AT], "little")
        if following is not None and self._sound(following):
            yield self._strict_header(following).predecessor.file_id

    def _last_trace(self, file: LogName) -> int:
        """The highest seq of a whole record in a file, 0 where there is none."""
        try:
            with self._directory.open_reader(file.name) as reader:
                header, _ = self._header(reader, file, None)
                if header is None:
                    return 0
                return max((each.seq for each in LogScan(reader, header).whole_records_behind(0)), default=0)
        except FailedPrecondition:
            raise
        except VecdbError:
            return 0


def _content(header: LogHeader, records: list[tuple[int, bytes]]) -> bytes:
    """A closed log file that holds just these records, in the place of the one with this header."""
    sizes = [RECORD_HEADER_BYTES + padded(len(data)) for _, data in records]
    size_bytes = HEADER_BYTES + sum(sizes) + RECORD_HEADER_BYTES
    header = replace(header, file_id=random_id(), allocated_bytes=size_bytes)
    content = bytearray(header.encode())
    for seq, data in records:
        # Durable as a whole when it is there at all.
        content += b"".join(
            encode_record(KIND_DATA, seq, [data], len(content), file_id=header.file_id, offset=len(content))
        )
    last_seq = records[-1][0] if records else header.first_seq - 1
    content += b"".join(
        encode_record(KIND_END, last_seq, [], len(content), file_id=header.file_id, offset=len(content))
    )
    return bytes(content)
