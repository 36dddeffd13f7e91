"""Memory of a process as the benchmark counts it, read from ``/proc``.

Memory added is anonymous memory plus the resident pages of the engine's own files; pages of the data set, of shared
libraries and of the page cache that nobody maps are not counted. Everything here is ``None`` where ``/proc`` does not
say it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

KB = 1024


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What one process holds, in bytes.

    Attributes
    ----------
    anonymous_bytes
        Private memory that no file backs, and what lies in swap.
    own_file_bytes
        Resident pages of mapped files under the engine's directory; a page mapped twice counts once.
    """

    anonymous_bytes: int
    own_file_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both together."""
        return self.anonymous_bytes + self.own_file_bytes


def memory_use(pid: int, directory: Path) -> MemoryUse | None:
    """What process ``pid`` holds now; ``directory`` tells its own files from others."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    own_prefix = f"{directory.resolve()}{os.sep}"
    anonymous = own = 0
    ours = False
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        if key == "Anonymous:" or key == "SwapPss:":
            anonymous += _bytes(rest)
        elif key == "Pss:" and ours:
            own += _bytes(rest)
        elif not key.endswith(":"):  # the head of a mapping: addresses, permissions, offset, device, inode, path
            fields = rest.split(None, 4)
            ours = len(fields) == 5 and fields[4].startswith(own_prefix)
    return MemoryUse(anonymous, own)


def resident_bytes(pid: int) -> int | None:
    """All resident pages of process ``pid``, the data set's among them."""
    return _status(pid, "VmRSS:")


def peak_resident_bytes(pid: int) -> int | None:
    """The most that ``resident_bytes`` has been since ``reset_peak``."""
    return _status(pid, "VmHWM:")


def reset_peak(pid: int) -> bool:
    """Let the peak start again from what is resident now; false where the kernel does not allow it."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def allocated_bytes(directory: Path) -> int:
    """Bytes of disk that the files under ``directory`` occupy."""
    files = [Path(root) / name for root, _, names in os.walk(directory) for name in names]
    return sum(path.lstat().st_blocks * 512 for path in files)


def _status(pid: int, key: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key):
            return _bytes(line[len(key) :])
    return None


def _bytes(text: str) -> int:
    return int(text.split()[0]) * KB
