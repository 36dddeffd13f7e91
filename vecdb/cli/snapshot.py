"""``vecdb snapshot``: keep what a collection holds now under a name."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict

from vecdb.cli.settings import Settings
from vecdb.cli.target import add_connect_arguments, open_target, split_target
from vecdb.errors import InvalidArgument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "vecdb snapshot [PATH | --connect HOST:PORT] COLLECTION [--create NAME | --drop NAME] [--json]"
    parser.description = (
        "List the snapshots of a collection, take one or drop one. A snapshot copies nothing; it keeps the files that "
        "it needs from being removed."
    )
    parser.add_argument("words", nargs="*", metavar="[PATH] COLLECTION", help="a directory; the collection")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--create", metavar="NAME", help="take a snapshot")
    kind.add_argument("--drop", metavar="NAME", help="forget a snapshot")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_connect_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """List, take or drop."""
    settings = Settings.of(namespace)
    connect = settings.choose("connect", namespace.connect)
    path, words = split_target(namespace.words, connect, settings)
    if len(words) != 1:
        raise InvalidArgument(f"name one collection, got {words}", field="collection", limit="1", value=words)
    looking = namespace.create is None and namespace.drop is None
    with open_target(path, connect, namespace, settings, read_only=looking) as database:
        collection = database.collection(words[0])
        if namespace.create is not None:
            collection.create_snapshot(namespace.create)
        if namespace.drop is not None:
            collection.drop_snapshot(namespace.drop)
        snapshots = collection.snapshots()
    if namespace.json:
        print(json.dumps({"snapshots": [asdict(each) for each in snapshots]}, ensure_ascii=False, indent=2))
        return 0
    from vecdb.cli.terminal import Terminal, printable

    terminal = Terminal()
    for each in snapshots:
        taken = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(each.created_s))
        terminal.say(f"{printable(each.name)}: taken {taken}, holds writes up to {each.seq:,}")
    if not snapshots:
        terminal.say(f"{printable(words[0])} has no snapshots.")
    return 0
