"""``vecdb stats``: what a database holds and what is on disk."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vecdb.cli.settings import Settings
from vecdb.cli.target import add_connect_arguments, open_target, split_target
from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    from vecdb.api import Collection
    from vecdb.results.stats import LiveRecall


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "vecdb stats [PATH | --connect HOST:PORT] [COLLECTION] [--json]"
    parser.add_argument(
        "words", nargs="*", metavar="[PATH] [COLLECTION]", help="a directory; one collection instead of all"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_connect_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Show the figures of one or all collections."""
    settings = Settings.of(namespace)
    connect = settings.choose("connect", namespace.connect)
    path, words = split_target(namespace.words, connect, settings)
    if len(words) > 1:
        raise InvalidArgument(f"name one collection or none, got {words}", field="collection", limit="1", value=words)
    with open_target(path, connect, namespace, settings) as database:
        names = words or list(database.collections())
        collections = [database.collection(name) for name in names]
        if namespace.json:
            print(json.dumps({each.name: as_object(each) for each in collections}, ensure_ascii=False, indent=2))
        else:
            _show(str(connect or path), collections)
    return 0


def as_object(collection: Collection) -> dict[str, Any]:
    """Schema and figures of a collection as a JSON object."""
    stats = asdict(collection.stats())
    fields = [
        {"name": each.name, "dim": each.dim, "metric": each.metric.value, "index": each.index.kind.value}
        for each in collection.schema.vectors
    ]
    return {"vectors": fields, **stats}


def _show(where: str, collections: list[Collection]) -> None:
    from vecdb.cli.terminal import Terminal, printable
    from vecdb.demo.telling import megabytes

    terminal = Terminal()
    if not collections:
        terminal.say(f"{where} holds no collections.")
    for collection in collections:
        stats = collection.stats()
        terminal.heading(printable(collection.name))
        vectors = ", ".join(
            f"{each.name or 'vector'}: {each.dim}-d {each.metric.value} {each.index.kind.value}"
            for each in collection.schema.vectors
        )
        waiting = f"{stats.unindexed_rows:,} waiting for an index, {stats.memtable_rows:,} in memory and log"
        facts = [
            ("vectors", vectors),
            ("points", f"{stats.points:,}; {waiting}"),
            ("segments", f"{stats.segments:,}, with {stats.deleted_rows:,} deleted or overwritten rows"),
            ("writes", f"{stats.last_seq:,}, of which {stats.flushed_seq:,} are all in segments"),
            ("on disk", f"{megabytes(stats.disk_bytes)} in all, {megabytes(stats.log_bytes)} of it log"),
        ]
        facts += [
            (f"  {role}", megabytes(size)) for role, size in sorted(stats.role_bytes.items(), key=lambda each: -each[1])
        ]
        memory = stats.memory
        budget = ""
        if memory.budget_bytes:
            budget = f" of {megabytes(memory.budget_bytes)}, given back {memory.releases:,} times"
        facts.append(("in memory", f"{megabytes(memory.resident_bytes)}{budget} (all collections)"))
        facts += [_live_recall(each) for each in stats.live_recall]
        facts += [(name, f"{count:,}") for name, count in sorted(stats.events.items()) if count]
        terminal.facts(facts)


def _live_recall(live: LiveRecall) -> tuple[str, str]:
    """What searches of one kind were found to miss."""
    asked = f"recall {live.recall:g}" if live.recall else "a given ef"
    where = f" in {live.field!r}" if live.field else ""
    some = "" if live.share == 1.0 else f", about {live.share:.0%} of the rows allowed"
    found = f"{live.estimate:.3f} ({live.low:.3f} to {live.high:.3f}; {live.samples:,} checked)"
    return f"found for {asked}{where}{some}", found
