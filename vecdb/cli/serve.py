"""``vecdb serve``: a database served over gRPC until it is told to stop."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vecdb.cli.settings import Settings, add_config_argument
from vecdb.errors import InvalidArgument

_log = logging.getLogger("vecdb.service")

OPTIONS = (
    "address", "insecure", "tls_certificate", "tls_key", "deadline_s", "grace_s", "requests_max", "streams_max",
    "sessions_max",
)  # fmt: skip

SERVED = ("warm_up", "read_only", "refresh_interval_s", "log_archive", "memory_budget_bytes", "build_threads")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Serve a database over gRPC, with health checking and reflection. SIGINT and SIGTERM let running requests "
        "finish, flush and stop."
    )
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="directory, made if missing")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="where to listen (default: 127.0.0.1:7700; port 0: a free one)"
    )
    parser.add_argument(
        "--insecure", action="store_const", const=True,
        help="listen without TLS where other machines can reach it: anybody there can read and change everything",
    )  # fmt: skip
    parser.add_argument("--tls-certificate", metavar="FILE", type=Path, help="PEM file; needs --tls-key")
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="PEM file; needs --tls-certificate")
    parser.add_argument("--deadline-s", metavar="S", type=float, help="longest time for one request (default: 30)")
    parser.add_argument(
        "--grace-s", metavar="S", type=float, help="time that requests have to finish at the end (default: 10)"
    )
    parser.add_argument(
        "--requests-max", metavar="N", type=int, help="requests at a time, others are refused (default: 256)"
    )
    parser.add_argument(
        "--streams-max", metavar="N", type=int, help="requests at a time on one connection (default: 256)"
    )
    parser.add_argument(
        "--sessions-max", metavar="N", type=int, help="sessions of searches open at a time (default: 1024)"
    )
    parser.add_argument(
        "--warm-up", action=argparse.BooleanOptionalAction, help="compile kernels before saying ready (default: yes)"
    )
    parser.add_argument(
        "--read-only", action="store_const", const=True,
        help="serve only reads, of a directory that another process may write to",
    )  # fmt: skip
    parser.add_argument(
        "--refresh-interval-s", metavar="S", type=float,
        help="with --read-only: how often to look for what was written (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--log-archive", metavar="DIR", type=Path, help="keep log files here, to restore backups as of any later write"
    )
    parser.add_argument(
        "--memory-budget-bytes", metavar="N", type=int,
        help="memory that searching may take; beyond it memory is given back and filled again (default: no budget)",
    )  # fmt: skip
    parser.add_argument(
        "--build-threads",
        metavar="N",
        type=int,
        help="threads that build a graph together (default: one for each core)",
    )
    add_config_argument(parser)


def run(namespace: argparse.Namespace) -> int:
    """Serve until a signal."""
    settings = Settings.of(namespace)
    path = settings.choose("path", namespace.path)
    if path is None:
        raise InvalidArgument("name the directory to serve", field="path")
    from vecdb.service import ServeOptions, ServerOptions, run_server

    server = ServerOptions(**settings.chosen(OPTIONS, namespace))
    with _logging_to_stderr():
        _log.info("starting: opening the database")
        chosen = settings.chosen(SERVED, namespace)
        return run_server(ServeOptions(path, server, **chosen))


class LineFormatter(logging.Formatter):
    """Time with the offset from UTC, level, message. A message stays one line, whatever names are in it."""

    default_time_format = "%Y-%m-%dT%H:%M:%S%z"
    default_msec_format = ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line, with control characters escaped; a traceback, if there is one, follows on lines of its own."""
        record.message = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in record.message
        )
        return super().formatMessage(record)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """While the block runs, what the package logs goes to standard error, where a server's operator looks."""
    logger = logging.getLogger("vecdb")
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
