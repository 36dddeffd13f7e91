"""The process that is killed: it reads batches from standard input, upserts each, and reports each acknowledgement.

``python -m vecdb.demo.writer PATH COLLECTION``. A batch is a line of JSON: ``ids``, ``payloads``, ``vectors`` (base64
of little-endian float32, row-major). The report is a line ``number seq``, written only after ``upsert`` returned and
only for what is durable. Nothing is reported that the database did not acknowledge.
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
            result = collection.upsert(batch["ids"], vectors, batch["payloads"])
            if result.durable_seq >= result.seq:
                sys.stdout.write(f"{number} {result.seq}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
