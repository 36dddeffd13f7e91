"""The check of an LMDB file that may be damaged: a child process, which the file may kill, reads every value of it.

The child is ``python -m vecdb.storage.lmdb_check PATH``; it reports one line of JSON on its standard output.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import lmdb

from vecdb.errors import Corruption, FailedPrecondition, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import (
    DATA_NAME,
    SUM_MODULUS,
    Fingerprint,
    Root,
    consistent_copy,
    stored_checksum,
)
from vecdb.storage.io import translating
from vecdb.storage.lmdb_transaction import read_root, scan

_MODULE: Final = "vecdb.storage.lmdb_check"
_CHILD_SECONDS_MIN: Final = 60
_CHILD_BYTES_PER_SECOND: Final = 20 << 20
_MAP_BYTES: Final = 1 << 20
"""At least; LMDB maps a larger file as a whole."""


def check_environment(directory: MmapDirectory, expected: Fingerprint | None = None) -> int:
    """Have a child process read the present state of an environment through; the number of values.

    Raises
    ------
    Corruption
        The file is missing, damaged, older than expected, or of another environment.
    FailedPrecondition
        It was written in a later format.
    """
    path = directory.path_of(DATA_NAME)
    root = verified_root_of_copy(directory, consistent_copy(directory))
    if expected is not None:
        root.require_at_least(expected, str(path))
    return root.count


def verified_root_of_copy(directory: MmapDirectory, data: bytes) -> Root:
    """``verified_root`` of a copy, in memory, of the environment of a directory."""
    path = directory.path_of(DATA_NAME)
    with translating(path, "read"):
        fd = directory.fs.anonymous(data)
    try:
        return verified_root(path_of_descriptor(fd), path, len(data), (fd,))
    finally:
        directory.fs.close(fd)


def verified_root(path: Path, name: Path, size_bytes: int, descriptors: tuple[int, ...] = ()) -> Root:
    """Have a child process read every value of an environment; its root record.

    Parameters
    ----------
    path
        Where the child finds the data file.
    name
        What the user knows it by.
    size_bytes
        How large it is, which decides how long the child may take.
    descriptors
        To be left open for the child.

    Raises
    ------
    Corruption
        The child found damage, was killed by it, or came to no end.
    FailedPrecondition
        The environment is of a later format.
    Unavailable
        The child could not do its work.
    """
    command = [sys.executable, "-m", _MODULE, str(path)]
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    timeout_s = _CHILD_SECONDS_MIN + size_bytes // _CHILD_BYTES_PER_SECOND
    try:
        child = subprocess.run(
            command, env=surroundings, capture_output=True, timeout=timeout_s, check=False, pass_fds=descriptors
        )
    except subprocess.TimeoutExpired as error:
        raise Corruption(f"{name} could not be read through in {timeout_s} s", field=str(name)) from error
    except OSError as error:
        raise Unavailable(f"cannot start the process that checks {name}: {error.strerror}", field=str(name)) from error
    if child.returncode < 0:
        reason = signal.Signals(-child.returncode).name
        raise Corruption(f"{name} is damaged: reading it ended a process by {reason}", field=str(name), value=reason)
    if child.returncode > 0:
        raise Unavailable(
            f"the process that checks {name} failed",
            field=str(name),
            value=child.stderr.decode(errors="replace")[-200:],
        )
    report = json.loads(child.stdout)
    if "version" in report:
        raise FailedPrecondition(report["version"].replace(str(path), str(name)), field=str(name))
    if "damage" in report:
        raise Corruption(report["damage"].replace(str(path), str(name)), field=str(name))
    return Root(*report["root"])


def path_of_descriptor(fd: int) -> Path:
    """A path to an open file that has no name, for this process and those it starts."""
    return Path(f"/proc/self/fd/{fd}")


def read_through(path: Path) -> Root:
    """Read every value of the environment at ``path`` and compare the whole with its root record; for the child.

    Raises
    ------
    Corruption, lmdb.Error
        There is damage; this process may be killed by it as well.
    FailedPrecondition
        The environment is of a later format.
    """
    env = lmdb.open(str(path), map_size=_MAP_BYTES, subdir=False, lock=False, readonly=True, create=False)
    with env.begin() as transaction:
        root = read_root(transaction, str(path))
        count = total = 0
        previous = b""
        for key, stored in scan(transaction):
            if key <= previous:
                raise Corruption(f"{path} has keys out of order", field=str(path))
            checksum = stored_checksum(key, stored, root.environment_id, str(path))
            if transaction.get(key) != stored:
                raise Corruption(f"{path} does not find the key {key[:16].hex()}...", field=str(path))
            previous = key
            count += 1
            total += checksum
    env.close()
    if (count, total % SUM_MODULUS) != (root.count, root.checksum_sum):
        raise Corruption(f"{path} lacks values, or holds older ones", field=str(path), limit=root.count, value=count)
    return root


def _main(path: str) -> None:
    """What the child process does: one line of JSON on its standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # Being killed by a damaged file is foreseen here.
    report: dict[str, object]
    try:
        root = read_through(Path(path))
        report = {"root": [root.environment_id, root.generation, root.count, root.checksum_sum]}
    except FailedPrecondition as error:
        report = {"version": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes LMDB raise is the finding
        report = {"damage": f"{path} is damaged: {error}"}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    _main(sys.argv[1])
