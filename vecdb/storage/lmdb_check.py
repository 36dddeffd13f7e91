"""The check of an LMDB file that may be damaged: a child process, which the file may kill, reads every value of it.

The child is ``python -m vecdb.storage.lmdb_store PATH``; it reports one line of JSON on its standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from vecdb.errors import Corruption, FailedPrecondition, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import (
    DATA_NAME,
    Fingerprint,
    Root,
    consistent_copy,
)
from vecdb.storage.io import translating

_MODULE: Final = "vecdb.storage.lmdb_store"
_CHILD_SECONDS_MIN: Final = 60
_CHILD_BYTES_PER_SECOND: Final = 20 << 20


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
