"""The process that is killed: it reads batches from standard input, upserts each, and says when each begins and ends.

``python -m vecdb.demo.writer PATH COLLECTION``. A batch is a line of JSON: ``ids``, ``payloads``, ``vectors`` (base64
of little-endian float32, row-major). A line ``begin number`` is written right before ``upsert`` is called; a line
``done number seq`` only after it returned and only for what is durable. Nothing is reported as done that the database
did not acknowledge.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import numpy as np

from vecdb.engine.database import EmbeddedDatabase


def main() -> None:
    """Write until standard input ends or the process is killed."""
    path, name = sys.argv[1:3]
    with EmbeddedDatabase.open(Path(path)) as database:
        collection = database.collection(name)
        dim = collection.schema.vector(None).dim
        for number, line in enumerate(sys.stdin):
            batch = json.loads(line)
            vectors = np.frombuffer(base64.b64decode(batch["vectors"]), np.float32).reshape(-1, dim)
            _say(f"begin {number}")
            result = collection.upsert(batch["ids"], vectors, batch["payloads"])
            if result.durable_seq >= result.seq:
                _say(f"done {number} {result.seq}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
