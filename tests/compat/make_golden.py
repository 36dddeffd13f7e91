"""Makes the golden database of the present format version: ``python -m tests.compat.make_golden``.

The archive holds a small database that has a bit of everything, as kill -9 left it, and what must be read from it.
That comes from the model below and not from the database. The archives of earlier versions stay as they are for ever.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.reproducible import reproducible
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.marker import FORMAT_VERSION
from vecdb.engine.options import EngineOptions
from vecdb.schema import CollectionSchema, IndexSpec, VectorField
from vecdb.types import F32Array, Metric, PointId

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = "expected.json"
DATABASE = "db"
OPTIONS = EngineOptions(
    compaction=False,
    memtable_size_bytes=2**20,
    graph_rows_min=20,
    log_file_bytes_first=4_096,
    log_kept_bytes=2**16,
    kernels="reference",
)
GRAPH = IndexSpec(m=4, ef_construction=16)
SCHEMAS = {
    "docs": CollectionSchema(
        (VectorField(8, Metric.COSINE, GRAPH, "body"), VectorField(5, Metric.L2, IndexSpec.parse("flat"), "title"))
    ),
    "笔记": CollectionSchema((VectorField(6, Metric.DOT, GRAPH, "note"),)),
}


@dataclass(frozen=True)
class Stored:
    """A point of the model."""

    payload: dict[str, Any]
    vectors: Mapping[str, F32Array]


@dataclass
class Model:
    """A collection and the independent model of it, written to together."""

    collection: Collection
    points: dict[PointId, Stored] = field(default_factory=dict)

    def upsert(self, chance: np.random.Generator, ids: Sequence[PointId], tag: str) -> None:
        points = {each: _point(chance, self.collection.schema, each, tag) for each in ids}
        columns = {
            declared.name: [stored.vectors.get(declared.name) for stored in points.values()]
            for declared in self.collection.schema.vectors
        }
        payloads = [stored.payload for stored in points.values()]
        self.collection.upsert(list(points), columns, payloads, request_id=f"{tag} {len(self.points)}")
        self.points |= points

    def delete(self, ids: Sequence[PointId]) -> None:
        self.collection.delete(ids)
        for each in ids:
            self.points.pop(each, None)

    def delete_tag(self, tag: str) -> None:
        self.collection.delete(where="tag = :tag", params={"tag": tag})
        self.points = {key: stored for key, stored in self.points.items() if stored.payload["tag"] != tag}


def _point(chance: np.random.Generator, schema: CollectionSchema, key: PointId, tag: str) -> Stored:
    payload = {
        "tag": tag,
        "key": str(key),
        "n": int(chance.integers(10)),
        "share": float(chance.integers(8)) / 8,
        "text": "向量 vector é" * int(chance.integers(3)),
        "deep": {"list": [1, "two", None, True]},
    }
    # The first field is always there; of the others some points lack the vector.
    present = [each for place, each in enumerate(schema.vectors) if place == 0 or chance.random() < 0.7]
    return Stored(payload, {each.name: chance.standard_normal(each.dim).astype(np.float32) for each in present})


def ids_of(first: int, count: int) -> list[PointId]:
    """Ids, every third one a string."""
    return [f"id-{number}-é" if number % 3 == 0 else number for number in range(first, first + count)]


def history(path: Path) -> dict[str, dict[PointId, Stored]]:
    """Write the database in two sessions, of which the second is not closed; what must be in it."""
    chance = np.random.default_rng(12)
    models: dict[str, Model] = {}
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        for name, schema in SCHEMAS.items():
            models[name] = Model(database.create_collection(name, schema=schema))
        database.create_collection("dropped", dim=3).upsert([1], [[1.0, 2.0, 3.0]])
        database.drop_collection("dropped")
        for model in models.values():
            for turn in range(3):
                for part in range(2):
                    model.upsert(chance, ids_of(30 * turn + 15 * part, 15), f"{turn}.{part}")
                model.collection.wait_indexed(60)
            # Dead rows in a segment that is flushed already, and a journal.
            model.delete(ids_of(25, 12))
            model.upsert(chance, [2**64 - 1, "0", 0, *ids_of(40, 8)], "replaced")
            model.collection.flush()
            model.upsert(chance, ids_of(80, 15), "in the log of a closed session")
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        for name, model in models.items():
            model.collection = database.collection(name)
            model.upsert(chance, ids_of(85, 20), "in the log of a killed session")
            model.delete(ids_of(5, 4))
            model.delete_tag("1.1")
            assert model.collection.stats().memtable_rows
        shutil.copytree(path, path.with_name(DATABASE))
    return {name: model.points for name, model in models.items()}


def expected() -> dict[str, dict[PointId, Stored]]:
    """What the golden database of the present version holds, told by the model."""
    with tempfile.TemporaryDirectory() as place, reproducible(FORMAT_VERSION):
        return history(Path(place) / "run")


def encode(points: Mapping[str, Mapping[PointId, Stored]]) -> bytes:
    """The model as JSON; float32 values come back exactly."""
    collections = {
        name: [
            {
                "id": key,
                "payload": stored.payload,
                "vectors": {at: list(map(float, x)) for at, x in stored.vectors.items()},
            }
            for key, stored in held.items()
        ]
        for name, held in points.items()
    }
    return json.dumps(collections, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> dict[str, dict[PointId, Stored]]:
    """The model that ``encode`` gave."""
    return {
        name: {
            each["id"]: Stored(each["payload"], {at: np.array(x, np.float32) for at, x in each["vectors"].items()})
            for each in held
        }
        for name, held in json.loads(data).items()
    }


def archive(version: int) -> Path:
    """Where the golden database of a version is."""
    return GOLDEN / f"version-{version}.tar.xz"


def write(target: Path) -> None:
    """Make the database and pack it, with nothing that tells of the machine."""
    with tempfile.TemporaryDirectory() as place, reproducible(FORMAT_VERSION):
        points = history(Path(place) / "run")
        root = Path(place) / DATABASE
        (root / "LOCK").write_bytes(
            b'{"pid": 1, "host": "golden", "started": "2023-11-14T22:13:20+00:00", "address": ""}\n'
        )
        with tarfile.open(target, "w:xz", preset=9) as packed:
            _add(packed, EXPECTED, encode(points))
            for path in sorted(root.rglob("*")):
                name = str(path.relative_to(place))
                if path.is_dir():
                    packed.addfile(_info(name, directory=True))
                else:
                    _add(packed, name, path.read_bytes())


def _add(packed: tarfile.TarFile, name: str, data: bytes) -> None:
    info = _info(name)
    info.size = len(data)
    packed.addfile(info, io.BytesIO(data))


def _info(name: str, *, directory: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    info.mode = 0o700 if directory else 0o600
    return info


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    target = archive(FORMAT_VERSION)
    write(target)
    print(f"{target.relative_to(Path.cwd())}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
