"""Real text that is on every machine: the documentation inside installed Python source files.

Docstrings, the language reference that ``help()`` shows, and the texts NumPy attaches to its compiled functions are
read from source files by ``ast``; nothing is imported and nothing is executed. Cut into passages (``splitter.py``),
without repetitions and without passages that are mostly code or tables.

Invariant: the passages and their order depend only on the files.
"""

from __future__ import annotations

import ast
import gc
import inspect
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vecdb.demo.splitter import split

WORDS_MIN = 5
LETTERS_SHARE_MIN = 0.6
SOURCE_BYTES_MAX = 4 * 2**20

FIRST_PACKAGES = ("numpy", "numba", "grpc", "google", "lark", "lmdb", "tqdm")
"""Installed packages that come before the others (those by name): what vecdb itself needs is on every machine."""

NOT_READ = frozenset({"__pycache__", "_vendor", "idle_test", "site-packages", "test", "testing", "tests", "vecdb"})
"""Tests, copies of other packages, and vecdb itself: the text must not depend on its version."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE = re.compile(r"(.+?[.!?。！？])(?=\s|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of documentation.

    Attributes
    ----------
    id
        Name of what it documents, and which piece it is: ``"asyncio.tasks.gather#2"``.
    title
        Module and qualified name.
    text
        At most 800 characters; its own line breaks.
    module, package
        Dotted name of the module; its first part.
    kind
        ``module``, ``class``, ``method``, ``function`` or ``reference``.
    line
        Line of the source file where the documented thing begins.
    """

    id: str
    title: str
    text: str
    module: str
    package: str
    kind: str
    line: int


@dataclass(frozen=True, slots=True)
class _Document:
    name: str
    kind: str
    line: int
    text: str


def source_files() -> list[tuple[str, Path]]:
    """Every source file that is read, with its module's dotted name: the standard library, then installed packages."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    installed: dict[str, Path] = {}
    for place in map(Path, sys.path):
        if place.name in ("site-packages", "dist-packages") and place.is_dir():
            for child in place.iterdir():
                installed.setdefault(child.name, child)
    rank = {name: position for position, name in enumerate(FIRST_PACKAGES)}
    return sorted(_modules(standard.iterdir())) + sorted(
        _modules(installed.values()), key=lambda each: (rank.get(each[0].partition(".")[0], len(rank)), each)
    )


def _modules(children: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """The modules that ``children``, modules and packages at the top, are and hold."""
    for child in children:
        if child.is_dir():
            if is_read(child.name):
                yield from _modules_of_package(child)
        elif child.suffix == ".py" and is_read(child.stem):
            yield child.stem, child


def _modules_of_package(package: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(package):
        folders[:] = filter(is_read, folders)
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".py" and is_read(path.stem):
                parts = path.relative_to(package.parent).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_read(name: str) -> bool:
    """Whether a file or directory of this name, without suffix, is read."""
    return name.isidentifier() and name not in NOT_READ


def passages(rows_max: int, progress: Callable[[int], None] | None = None) -> list[Passage]:
    """At most ``rows_max`` passages of this machine's documentation, always the same ones in the same order.

    Parameters
    ----------
    rows_max
        Where to stop. Things with a private name come last, and only if there is room.
    progress
        Called with the number of passages found so far, after each file.
    """
    found: list[Passage] = []
    private: list[Passage] = []
    seen: set[str] = set()
    # A syntax tree is a hundred thousand objects that the cycle collector would walk through again and again.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for module, path in source_files():
            for passage in _passages_of_file(module, path):
                key = "".join(_WORD.findall(passage.text.casefold()))
                if key not in seen:
                    seen.add(key)
                    (private if is_private(passage) else found).append(passage)
            if progress is not None:
                progress(min(len(found), rows_max))
            if len(found) >= rows_max:
                break
    finally:
        if collecting:
            gc.enable()
    return _with_distinct_ids([*found, *private][:rows_max])


def is_private(passage: Passage) -> bool:
    """Whether the name of what is documented, without its module, says that it is for insiders."""
    names = passage.title[len(passage.module) + 1 :].split(".")
    return any(name.startswith("_") and not name.startswith("__") for name in names)


def _with_distinct_ids(found: list[Passage]) -> list[Passage]:
    """Number the pieces of things that have the same name, such as two branches of an ``if``."""
    taken: dict[str, int] = {}
    distinct = []
    for passage in found:
        taken[passage.title] = number = taken.get(passage.title, 0) + 1
        distinct.append(replace(passage, id=f"{passage.title}#{number}"))
    return distinct


def _passages_of_file(module: str, path: Path) -> Iterator[Passage]:
    for document in read_documents(module, path):
        title = f"{module}.{document.name}" if document.name else module
        for text in split(document.text):
            if is_prose(text):
                yield Passage("", title, text, module, module.partition(".")[0], document.kind, document.line)


def is_prose(text: str) -> bool:
    """Whether ``text`` is mostly words: not code, a table, or a line such as "See above"."""
    words = _WORD.findall(text)
    visible = sum(map(len, text.split()))
    return len(words) >= WORDS_MIN and sum(map(len, words)) >= LETTERS_SHARE_MIN * visible


def first_sentence(text: str) -> str:
    """The first sentence of a passage on one line, or the first line where there is no sentence."""
    paragraph = text.split("\n\n")[0]
    match = _SENTENCE.match(paragraph)
    return " ".join((match.group(1) if match else paragraph).split())


def read_documents(module: str, path: Path) -> list[_Document]:
    """The documentation inside one source file; nothing where it is no Python of this version, or too large."""
    try:
        if path.stat().st_size > SOURCE_BYTES_MAX:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in other people's files
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    if module == "pydoc_data.topics":
        return list(_reference(tree))
    documents = [_Document("", "module", 1, text)] if (text := ast.get_docstring(tree)) else []
    documents += _documented(tree.body, "", in_class=False)
    return documents


def _documented(body: list[ast.stmt], prefix: str, *, in_class: bool) -> Iterator[_Document]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{node.name}"
            is_class = isinstance(node, ast.ClassDef)
            if text := ast.get_docstring(node):
                yield _Document(name, "class" if is_class else "method" if in_class else "function", node.lineno, text)
            if is_class:
                yield from _documented(node.body, f"{name}.", in_class=True)
        elif isinstance(node, ast.If):
            yield from _documented([*node.body, *node.orelse], prefix, in_class=in_class)
        elif isinstance(node, ast.Try):
            branches = [*node.body, *(each for handler in node.handlers for each in handler.body), *node.orelse]
            yield from _documented(branches, prefix, in_class=in_class)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _attached(node.value)


def _attached(call: ast.Call) -> Iterator[_Document]:
    """What ``add_newdoc(module, name, text)`` of NumPy says; ``text`` may be (attribute, text) or a list of such."""
    if not (isinstance(call.func, ast.Name) and call.func.id == "add_newdoc" and len(call.args) == 3):
        return
    name, content = call.args[1], call.args[2]
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        return
    pairs = content.elts if isinstance(content, ast.List) else [content]
    for pair in pairs:
        attribute = ""
        if isinstance(pair, ast.Tuple) and len(pair.elts) == 2 and isinstance(pair.elts[0], ast.Constant):
            attribute, pair = f".{pair.elts[0].value!s}", pair.elts[1]
        if isinstance(pair, ast.Constant) and isinstance(pair.value, str):
            text = inspect.cleandoc(pair.value)
            # A signature in front, which ends with a line of two dashes, is no prose.
            text = text.partition("\n--\n")[2] or text
            yield _Document(name.value + attribute, "method" if attribute else "function", call.lineno, text)


def _reference(tree: ast.Module) -> Iterator[_Document]:
    """The language reference: one large dictionary of topic and text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield _Document(str(key.value), "reference", value.lineno, value.value)
