"""A real file system that loses the power on demand: ext4 on a loop device, shut down by the FS_IOC_SHUTDOWN ioctl.

Needs root, loop devices, ``mkfs.ext4`` and a kernel that mounts ext4; ``unavailable`` says what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

FS_IOC_SHUTDOWN = 0x8004587D
WITH_JOURNAL, WITHOUT_JOURNAL = 1, 2
"""The journal is written out and the data is not: renamed files full of zeros. Or all that was not flushed is gone."""
SIZE_BYTES = 64 * 2**20
TOOLS = ("mkfs.ext4", "losetup", "mount", "umount")


class Volume:
    """A mounted file system on a loop device.

    Attributes
    ----------
    root
        Where it is mounted.
    """

    def __init__(self) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="vecdb-volume-"))
        self.root = self._place / "mounted"
        self._device = ""
        try:
            self.root.mkdir()
            image = self._place / "image"
            with image.open("wb") as file:
                file.truncate(SIZE_BYTES)
            _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", str(image))
            self._device = _run("losetup", "--find", "--show", str(image)).strip()
            self._mount()
        except BaseException:
            self.close()
            raise

    def lose_power(self, flag: int) -> None:
        """From now on nothing reaches the device: every call fails, in every process."""
        shut_down(self.root, flag)

    def restart(self) -> None:
        """Mount what is left. Nobody may have a file open by now."""
        for _ in range(20):
            _run("umount", str(self.root))
            self._mount()
            if self._is_up():
                return
            # The system was not done with the one that was shut down, and mounted that again.
            time.sleep(0.1)
        raise RuntimeError(f"{self.root} stays shut down")

    def _is_up(self) -> bool:
        fd = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _mount(self) -> None:
        _run("mount", "-o", "noatime", "-t", "ext4", self._device, str(self.root))

    def close(self) -> None:
        """Unmount it and remove everything."""
        with contextlib.suppress(RuntimeError):  # It was never mounted, where the beginning failed.
            # Lazily: what this process still maps goes with the last mapping.
            _run("umount", "--lazy", str(self.root))
        if self._device:
            _run("losetup", "--detach", self._device)
        shutil.rmtree(self._place, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shut_down(root: Path, flag: int) -> None:
    """Shut down the file system that is mounted at ``root``."""
    fd = os.open(root, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", flag))
    finally:
        os.close(fd)


@functools.cache
def unavailable() -> str:
    """Why there can be no such volume here; empty where there can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    missing = [each for each in TOOLS if shutil.which(each) is None]
    if missing:
        return f"{', '.join(missing)} is missing"
    try:
        with Volume() as volume:
            (volume.root / "file").write_bytes(b"x")
            volume.lose_power(WITHOUT_JOURNAL)
            volume.restart()
            if (volume.root / "file").exists():
                return "a file that was never synced survived the shutdown of its file system"
    except (RuntimeError, OSError) as error:
        return str(error)
    return ""


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:1])} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
