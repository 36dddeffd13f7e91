"""The tasks that children of the fork server run. Each gets the pipe to report to, and may be killed at any moment."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import io
import logging
import os
import shutil
import signal
import subprocess
import threading
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.crash.backups import (  # noqa: F401 - tasks as well
    back_up_until_killed,
    look_at_backup,
    look_at_restored,
    make_source,
    restore_until_killed,
)
from tests.crash.crowd import Crowd, Outcome, Place
from tests.crash.damages import OTHER, OTHER_ROWS, Damage, judged_damage
from tests.crash.flips import Finding, Flip, complete, found
from tests.crash.history import Batch, State
from tests.crash.mutants import mutant_of
from tests.crash.observe import observe
from tests.crash.power import PowerLossFileSystem
from tests.crash.replays import look_at_replayed, make_archived, replay_until_killed  # noqa: F401 - tasks as well
from tests.crash.volume import shut_down
from tests.crash.workload import (
    NAME,
    OPTIONS,
    Inspection,
    PersistentWorkload,
    Plan,
    QuietWorkload,
    Workload,
    inspect,
    reporter,
)
from tests.reproducible import reproducible
from tests.storage.faults import CountingFileSystem, FailingFileSystem, KillingFileSystem
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.errors import FailedPrecondition, Unavailable
from vecdb.kernels.protocol import Kernels
from vecdb.storage.io import FileSystem

_kernels: Kernels | None = None


def kernels() -> Kernels:
    """Made once, before any fork."""
    assert _kernels is not None
    return _kernels


def prepare(directory: Path) -> None:
    """Bring everything into memory that a child needs."""
    global _kernels
    # What was noticed comes back as a value; the log would only drown the report of the tests.
    logging.getLogger("vecdb").setLevel(logging.CRITICAL + 1)
    subprocess.run = _forked  # type: ignore[assignment]
    _kernels = choose_kernels(OPTIONS.kernels)
    plan = Plan(str(directory / "db"), 3, 2, 10)
    Workload(plan, FileSystem(), kernels(), lambda *_, **__: None).run()
    with EmbeddedDatabase.open(plan.path, options=OPTIONS, kernels=kernels()) as database:
        observe(database.collection(NAME), range(plan.writers))


def _forked(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
    """Run what the engine starts as ``python -m MODULE ARGUMENT`` in a forked child: as isolated, and far quicker."""
    module, argument = command[-2:]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = io.StringIO()
            with redirect_stdout(told):
                importlib.import_module(module)._main(argument)
            os.write(writing, told.getvalue().encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told_bytes = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return subprocess.CompletedProcess(command, status, told_bytes, b"")


def count_calls(_: int, plan: Plan) -> dict[str, int]:
    """How many write-class calls the plan makes, by name."""
    file_system = CountingFileSystem()
    Workload(plan, file_system, kernels(), lambda *_, **__: None).run()
    return dict(file_system.calls)


def build(_: int, plan: Plan) -> None:
    """Run the plan to its end, the database closed cleanly; its names and sizes are the same every time."""
    with reproducible(plan.seed, clock=False):
        QuietWorkload(plan, FileSystem(), kernels(), lambda *_, **__: None).run()


def put_in_place(_: int, mutant: str) -> None:
    """Apply a mutant and end: one that cannot even be applied is noticed by nothing but this."""
    mutant_of(mutant).apply()


def run_until_killed(fd: int, plan: Plan, kill_at: int, mutant: str = "") -> None:
    """Run the plan and die at a write-class call."""
    mutant_of(mutant).apply()
    report = reporter(fd)

    class Telling(KillingFileSystem):
        def before(self, call: str, *arguments: Any) -> None:
            if self.total + 1 == kill_at:
                report("killed", call=call)
            super().before(call, *arguments)

    Workload(plan, Telling(kill_at), kernels(), report).run()


def recover_log_until_killed(_: int, path: str, kill_at: int) -> int:
    """Open a database that has much to replay and die at a write-class call; how many there were if that never came."""
    file_system = KillingFileSystem(kill_at)
    with EmbeddedDatabase.open(path, options=OPTIONS, kernels=kernels(), file_system=file_system) as database:
        database.collection(NAME).flush()
    return file_system.total


def recover_until_killed(_: int, path: str, kill_at: int) -> None:
    """Open what a crash left, have it write everything out, and die at a write-class call, if it makes so many."""
    file_system = KillingFileSystem(kill_at)
    with EmbeddedDatabase.open(path, options=OPTIONS, kernels=kernels(), file_system=file_system) as database:
        if NAME in database.collections():
            database.collection(NAME).wait_indexed(60)


def run_until_shutdown(fd: int, plan: Plan, root: str, lose_at: int, flag: int) -> None:
    """Run the plan on a volume, shut the volume down at a write-class call, and die.

    From then on no other call begins; those that have begun go on, and may return what is not true any more.
    """
    report = reporter(fd)
    going_on = threading.Lock()

    class Telling(CountingFileSystem):
        def before(self, call: str, *arguments: Any) -> None:
            with going_on:
                super().before(call, *arguments)
                if self.total == lose_at:
                    report("killed", call=call)
                    shut_down(Path(root), flag)
                    os.kill(os.getpid(), signal.SIGKILL)

    Workload(plan, Telling(), kernels(), report).run()


def run_until_power_loss(
    fd: int, plan: Plan, lose_at: int, lose_on: str, mutant: str, survivors: list[tuple[str, int | None]]
) -> None:
    """Run the plan, lose the power at a write-class call, and leave what survives in each of ``survivors``.

    Parameters
    ----------
    lose_at, lose_on
        As ``PowerLossFileSystem`` takes them.
    mutant
        The name of the engine to run; empty for the right one.
    survivors
        (directory, seed of what unsynced pieces survive or None for none of them).
    """
    report = reporter(fd)
    wrong = mutant_of(mutant)
    wrong.apply()
    file_system = PowerLossFileSystem(
        Path(plan.path).parent, lose_at=lose_at, lose_on=lose_on, left_out={wrong.left_out} - {""}
    )
    workload = Workload(plan, file_system, kernels(), report)
    try:
        workload.run()
    except BaseException:
        # Whatever a call says once the power is lost; nobody hears it.
        if not file_system.lost:
            raise
    if workload.database is not None:
        # Background threads come to an end; none of them can change a byte any more.
        try:
            workload.database.close()
        except BaseException as error:
            # After a loss of power closing may fail in any way; it is told, not judged.
            report("close failed", error=repr(error))
    report("lost", call=file_system.lost_at, calls=file_system.calls)
    for directory, seed in survivors:
        file_system.materialise(Path(directory), seed=seed)


def run_with_error(fd: int, plan: Plan, number: int, calls: tuple[str, ...], at: int) -> None:
    """Run the plan while one call fails; what is refused for want of space is tried again, all else ends the run."""
    report = reporter(fd)

    class Telling(FailingFileSystem):
        def before(self, call: str, *arguments: Any) -> None:
            try:
                super().before(call, *arguments)
            except OSError:
                report("failed", call=call)
                raise

    workload = PersistentWorkload(plan, Telling(number, at, calls=calls), kernels(), report)
    try:
        workload.run()
    except (Unavailable, FailedPrecondition):
        if number == errno.ENOSPC:
            raise
        # Reads go on, and tell of acknowledged writes and of all or none of those in flight.
        workload.report_differences()


def look(_: int, path: str, writers: int, retries: list[Batch], twice: bool) -> Inspection:
    """Inspect a database in a fresh process."""
    return inspect(path, writers, retries, kernels(), twice=twice)


def flip_bytes(
    _: int, base: str, place: str, flips: list[Flip], plan: Plan, state: State, mutant: str = ""
) -> list[Finding]:
    """Judge some flips, one after the other; a child that is killed is asked again for each of them."""
    mutant_of(mutant).apply()
    return [
        found(Path(base), Path(place) / str(number), flip, plan, state, kernels()) for number, flip in enumerate(flips)
    ]


def build_two(_: int, plan: Plan, older: str) -> None:
    """As ``build``, with a second collection; a copy of the half-way state goes to ``older``."""
    half = plan.batches // 2
    run = replace(plan, batches=half)
    QuietWorkload(run, FileSystem(), kernels(), lambda *_, **__: None).run()
    shutil.copytree(plan.path, older)
    rest = replace(plan, first=half, batches=plan.batches - half)
    QuietWorkload(rest, FileSystem(), kernels(), lambda *_, **__: None).run()
    with EmbeddedDatabase.open(plan.path, options=OPTIONS, kernels=kernels()) as database:
        other = database.create_collection(OTHER, dim=3)
        other.upsert(range(OTHER_ROWS), [[1.0, number, 2.0] for number in range(OTHER_ROWS)])
        other.flush()


def damage_files(_: int, base: str, older: str, place: str, damages: list[Damage], plan: Plan, state: State) -> Any:
    """Judge some damages, one after the other."""
    return [
        judged_damage(Path(base), Path(older), Path(place) / str(number), damage, plan, state, kernels())
        for number, damage in enumerate(damages)
    ]


def completeness(_: int, base: str) -> dict[str, int]:
    """What the database to flip bytes in consists of."""
    return complete(Path(base), kernels())


def crowd(fd: int, place: Place, readers: int, seconds: float, kills: int) -> Outcome:
    """Run readers beside a writer."""
    # Longer than a task may take as a rule.
    faulthandler.dump_traceback_later(seconds + 60, exit=True, file=fd)
    return Crowd(place, readers).run(seconds, kills)
