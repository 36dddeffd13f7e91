"""Copying a write-once file of arrays: its bytes, front to back, none of which is handed out unverified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vecdb.storage.array_format import FileRef, damaged, encode_footer, read_frame
from vecdb.storage.checksum import BLOCK_BYTES, block_checksums
from vecdb.storage.directory import MmapDirectory

PIECE_BYTES: Final = 1 << 20


def verified_pieces(directory: MmapDirectory, ref: FileRef) -> Iterator[bytes]:
    """The content of a file, piece by piece, as it was written.

    Raises
    ------
    Corruption
        The file is missing, another one, damaged, or cannot be read; the message names it and the offset.
    FailedPrecondition
        It was written in a later format.
    """
    with directory.open_reader(ref.name) as reader:
        frame = read_frame(reader, ref)
        for at in range(0, frame.body_bytes, PIECE_BYTES):
            piece = reader.pread(min(PIECE_BYTES, frame.body_bytes - at), at)
            first = at // BLOCK_BYTES
            for number, found in enumerate(block_checksums(piece, ref.file_id, first), first):
                if found != int(frame.checksums[number]):
                    raise damaged(str(reader.path), number * BLOCK_BYTES, "is damaged in the block")
            yield piece
        # What is behind the blocks was read and checked with the frame; these are the same bytes, made again.
        table = frame.checksums.tobytes()
        yield table
        footer, root = encode_footer(ref.file_id, frame.body_bytes, table)
        assert root == ref.checksum, ref
        yield footer
