"""``vecdb search``: the nearest points of a collection, in a directory or on a server."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecdb.cli.settings import Settings
from vecdb.cli.target import add_connect_arguments, open_target, split_target
from vecdb.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    import numpy as np

    from vecdb.api import Collection
    from vecdb.arguments import RecallArgument
    from vecdb.cli.terminal import Terminal
    from vecdb.explanation import Explanation
    from vecdb.results.hits import Hit, Hits
    from vecdb.types import PointId

EMBEDDERS = ("wordllama",)
PAYLOAD_CHARACTERS_MAX = 240


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = (
        "vecdb search [PATH | --connect HOST:PORT] COLLECTION (--vector V | --id ID | --text T --embed MODEL) ..."
    )
    parser.add_argument(
        "words", nargs="+", metavar="[PATH] COLLECTION", help="a database's directory, and a collection in it"
    )
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--vector", metavar="JSON|@FILE", help="a JSON list of numbers, @file.json or @file.npy")
    query.add_argument(
        "--id", metavar="ID", help="what is near this point: 7 is the integer, '\"7\"' and others are strings"
    )
    query.add_argument("--text", help="plain words; needs --embed")
    parser.add_argument(
        "--embed", metavar="MODEL", choices=EMBEDDERS,
        help="model that makes the vector of --text: wordllama. It must be the one that made the collection's vectors, "
        "as in the demo; a collection does not record its model",
    )  # fmt: skip
    parser.add_argument("-k", type=int, default=10, metavar="N", help="hits wanted (default: 10)")
    parser.add_argument(
        "--where", metavar="FILTER", help="only points that match, as in \"lang = 'zh' AND year >= :y\""
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of :NAME in the filter, JSON or a string",
    )
    parser.add_argument("--field", metavar="NAME", help="vector field, where there are several")
    parser.add_argument("--recall", metavar="R", help="mean recall to aim at, as in 0.99, or 'exact' (default: 0.95)")
    parser.add_argument(
        "--explain", action="store_true", help="instead of the hits: how the search was done, part by part, and advice"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_connect_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Search and show the hits."""
    settings = Settings.of(namespace)
    connect = settings.choose("connect", namespace.connect)
    path, words = split_target(namespace.words, connect, settings)
    if len(words) != 1:
        raise InvalidArgument(f"name one collection, got {words}", field="collection", limit="1", value=words)
    params = dict(parameter(each) for each in namespace.param)
    recall = recall_of(namespace.recall)
    if (namespace.text is None) != (namespace.embed is None):
        raise InvalidArgument("--text and --embed go together", field="embed", limit=" | ".join(EMBEDDERS))
    given = query_vector(namespace)
    with open_target(path, connect, namespace, settings) as database:
        collection = database.collection(words[0])
        own_id = None if namespace.id is None else point_id(namespace.id)
        vector = given if own_id is None else vector_of_point(collection, own_id, namespace.field)
        # A point is its own nearest neighbour, which nobody wants to be told.
        arguments: dict[str, Any] = {
            "k": namespace.k + (own_id is not None), "field": namespace.field, "where": namespace.where,
            "params": params or None, "recall": recall,
        }  # fmt: skip
        if namespace.explain:
            _show_explanation(collection.name, collection.explain(vector, **arguments), as_json=namespace.json)
            return 0
        start = time.perf_counter()
        hits = collection.search(vector, **arguments)
        seconds = time.perf_counter() - start
        shown = [hit for hit in hits if hit.id != own_id or type(hit.id) is not type(own_id)][: namespace.k]
        if namespace.json:
            print(json.dumps(_as_object(collection.name, hits, shown, seconds), ensure_ascii=False))
        else:
            _show(collection.name, hits, shown)
    return 0


def query_vector(namespace: argparse.Namespace) -> Any:
    """The vector that ``--vector`` or ``--text`` stands for; ``None`` for ``--id``."""
    if namespace.vector is not None:
        return read_vector(namespace.vector)
    if namespace.text is not None:
        from vecdb.demo.embedder import Embedder

        return Embedder().embed([namespace.text])[0]
    return None


def read_vector(text: str) -> Any:
    """A vector written as JSON, or in a file named after ``@``.

    Raises
    ------
    NotFound
        The file cannot be read.
    InvalidArgument
        It holds no vector.
    """
    try:
        if not text.startswith("@"):
            return json.loads(text)
        path = Path(text[1:])
        if path.suffix == ".npy":
            return _read_npy(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(
            f"cannot read the vector: {error.strerror}: {text[1:]}", field="vector", value=text[1:]
        ) from None
    except ValueError as error:
        raise InvalidArgument(f"--vector is no list of numbers: {error}", field="vector", value=text) from None


def _read_npy(path: Path) -> np.ndarray[Any, Any]:
    import numpy as np

    loaded: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
    # One row of a file of rows is what a batch of one was saved as.
    return loaded[0] if loaded.ndim == 2 and loaded.shape[0] == 1 else loaded


def point_id(text: str) -> PointId:
    """The id that ``text`` stands for: a JSON integer or string, or else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | str) and not isinstance(value, bool) else text


def parameter(text: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``, where the value is JSON or else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidArgument(f"--param takes NAME=VALUE, got {text!r}", field="param", limit="NAME=VALUE", value=text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def recall_of(text: str | None) -> RecallArgument:
    """The recall that ``text`` stands for."""
    if text is None or text == "exact":
        return text  # type: ignore[return-value]
    try:
        return float(text)
    except ValueError:
        raise InvalidArgument(
            f"--recall takes a number or 'exact', got {text!r}", field="recall", limit="(0, 1] | exact", value=text
        ) from None


def vector_of_point(collection: Collection, wanted: PointId, field: str | None) -> Any:
    """The stored vector of a point.

    Raises
    ------
    NotFound
        There is no such point, or it has no vector in the field.
    """
    points = collection.get([wanted], with_payloads=False, with_vectors=True)
    name = collection.schema.vector(field).name
    if not points or name not in points[0].vectors:
        what = "point" if not points else "vector of point"
        raise NotFound(f"{collection.name!r} has no {what} {wanted!r}", field="id", value=wanted)
    return points[0].vectors[name]


def _as_object(name: str, hits: Hits, shown: list[Hit], seconds: float) -> dict[str, Any]:
    return {
        "collection": name,
        "hits": [{"id": hit.id, "score": hit.score, "distance": hit.distance, "payload": hit.payload} for hit in shown],
        "complete": hits.complete,
        "strategy": hits.strategy,
        "recall_estimate": hits.recall_estimate,
        "unindexed_rows": hits.unindexed_rows,
        "seconds": round(seconds, 6),
    }


def _show_explanation(name: str, told: Explanation, *, as_json: bool) -> None:
    if not as_json:
        print(told)
        return
    found = {"collection": name, **dataclasses.asdict(told), "total_s": told.total_s}
    print(json.dumps(found, ensure_ascii=False))


def _show(name: str, hits: Hits, shown: list[Hit]) -> None:
    from vecdb.cli.terminal import Terminal

    terminal = Terminal()
    for hit in shown:
        _show_hit(terminal, hit)
    expected = "" if hits.recall_estimate >= 1.0 else f", recall about {hits.recall_estimate:.2f}"
    rest = "" if hits.complete else ", INCOMPLETE"
    terminal.say(f"{len(shown)} hit{'' if len(shown) == 1 else 's'} in {name}, by {hits.strategy}{expected}{rest}")


def _show_hit(terminal: Terminal, hit: Hit) -> None:
    """A hit with title and text as the demo shows one; any other with its id and its payload."""
    from vecdb.demo.questions import snippet
    from vecdb.demo.screen import Answer

    payload = hit.payload or {}
    title, text = payload.get("title"), payload.get("text")
    if isinstance(title, str) and isinstance(text, str):
        # The ids of the demo begin with the title.
        head = str(hit.id) if title in str(hit.id) else f"{title}  ({hit.id!r})"
    else:
        head, text = repr(hit.id), json.dumps(payload, ensure_ascii=False) if payload else ""
    terminal.answer(Answer(hit.score, head, snippet(text, PAYLOAD_CHARACTERS_MAX)))
