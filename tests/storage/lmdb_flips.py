"""Flips bytes of an LMDB environment, each flip read in a forked child of its own, and prints what came of them.

Run as a process of its own, for forking is only safe where there is one thread. One line of JSON: how many flips were
detected, killed the child, were harmless, and which were served as wrong data.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from vecdb.errors import VecdbError
from vecdb.storage import lmdb_store
from vecdb.storage.environment import Fingerprint
from vecdb.storage.lmdb_check import read_through

DETECTED, HARMLESS, WRONG = 10, 11, 12


def outcome(path: Path, expected: dict[bytes, bytes], fingerprint: Fingerprint) -> int:
    """What the checking process and, after it, the owner would make of the file at ``path``."""
    try:
        root = read_through(path)
        root.require_at_least(fingerprint, str(path))
        found = lmdb_store._all_items(path, 1 << 20)
    except (VecdbError, lmdb_store.lmdb.Error):
        return DETECTED
    return HARMLESS if found == expected else WRONG


def main(path: Path, generation: int, environment_id: int, flips: int) -> None:
    expected = lmdb_store._all_items(path, 1 << 20)
    fingerprint = Fingerprint(environment_id, generation, 0)
    whole = path.read_bytes()
    chance = random.Random(1)
    # The pages that say what is where are few; every byte of their beginnings is tried.
    starts = [page + offset for page in range(0, len(whole), 4096) for offset in range(160)]
    places = chance.sample(starts, min(len(starts), flips // 2))
    places += chance.sample(range(len(whole)), flips - len(places))
    counts = {"detected": 0, "killed": 0, "harmless": 0}
    wrong = []
    for place in places:
        bits = 1 << chance.randrange(8)
        copy = path.with_name(f"copy{place}")
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(outcome(copy, expected, fingerprint))
        status = os.waitpid(pid, 0)[1]
        copy.unlink()
        if os.WIFSIGNALED(status):
            counts["killed"] += 1
        elif os.WEXITSTATUS(status) in (DETECTED, 1):
            counts["detected"] += 1
        elif os.WEXITSTATUS(status) == HARMLESS:
            counts["harmless"] += 1
        else:
            wrong.append([place, bits])
    print(json.dumps({**counts, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
