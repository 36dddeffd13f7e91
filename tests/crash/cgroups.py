"""A cap that the kernel puts on memory: a control group of its own, version 1 or 2, that goes with the test.

What a process in it takes beyond the cap is reclaimed where it can be, files in memory first; where it cannot, the
kernel kills the process. Files of a tmpfs count and cannot be reclaimed: what is capped belongs on a disk.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


class NoMemoryGroup(Exception):
    """No group can be made here; the message says why."""


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """The file into which a process writes its id to be capped.

    Raises
    ------
    NoMemoryGroup
        There is no memory controller that this process may use.
    """
    place = _own_group() / f"vecdb-test-{os.getpid()}"
    try:
        place.mkdir()
    except OSError as error:
        raise NoMemoryGroup(f"{place} cannot be made: {error.strerror}") from error
    try:
        limits = [place / name for name in ("memory.max", "memory.limit_in_bytes")]
        limit = next((each for each in limits if each.exists()), None)
        if limit is None:
            raise NoMemoryGroup(f"{place} has no memory controller")
        try:
            limit.write_text(str(limit_bytes))
            # What would be swapped out is not to be slow, but to be refused.
            for name, value in (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", str(limit_bytes))):
                if (place / name).exists():
                    (place / name).write_text(value)
        except OSError as error:
            raise NoMemoryGroup(f"{limit} cannot be written: {error.strerror}") from error
        yield place / "cgroup.procs"
    finally:
        _remove(place)


def _own_group() -> Path:
    """The directory of the group that this process is in, as far as memory goes."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        paths["cgroup2" if number == "0" and not controllers else controllers] = path.lstrip("/")
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _device, mounted_at, kind, options, *_ in mounts:
        named = next((path for name, path in paths.items() if "memory" in name.split(",")), None)
        if kind == "cgroup" and "memory" in options.split(",") and named is not None:
            return _existing(Path(mounted_at), named)
    for _device, mounted_at, kind, *_ in mounts:
        controllers = Path(mounted_at) / "cgroup.controllers"
        if kind == "cgroup2" and "memory" in controllers.read_text().split():
            return _existing(Path(mounted_at), paths.get("cgroup2", ""))
    raise NoMemoryGroup("no memory controller is mounted")


def _existing(mounted_at: Path, path: str) -> Path:
    """The group, or the top of what is mounted: a container may see less than the kernel tells it."""
    return mounted_at / path if (mounted_at / path).is_dir() else mounted_at


def _remove(place: Path) -> None:
    """Remove a group, as soon as the kernel has let go of the processes that ended in it."""
    for _ in range(100):
        try:
            place.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return
    place.rmdir()
