"""The corpus: read and never run, the same every time, real text only."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from vecdb.demo import corpus
from vecdb.demo.splitter import PASSAGE_CHARACTERS_MAX


def _write(path: Path, text: str) -> tuple[str, Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path.stem, path


def _titles(monkeypatch: pytest.MonkeyPatch, files: list[tuple[str, Path]], rows_max: int = 1000) -> list[str]:
    monkeypatch.setattr(corpus, "source_files", lambda: files)
    return [passage.title for passage in corpus.passages(rows_max)]


MODULE = '''
    """What the module is about, said in a whole sentence."""
    open("{marker}", "w").write("executed")
    raise SystemExit("never run this")

    class Parser:
        """Reads a text and makes a tree of it, slowly."""

        def parse(self, text):
            """Return the tree that the given text stands for."""

            def inner():
                """Local functions are nobody's documentation at all."""

        async def _hidden(self):
            """What only insiders should ever want to call."""

    if True:
        def conditional():
            """Defined in one branch of a condition only."""
    try:
        import faster
    except ImportError:
        def fallback():
            """Used where the faster module is not installed."""
'''


def test_everything_documented_is_found_and_nothing_is_run(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    files = [_write(tmp_path / "sample.py", MODULE.replace("{marker}", str(marker)))]
    monkeypatch.setattr(corpus, "source_files", lambda: files)
    found = corpus.passages(1000)
    assert [(each.title, each.kind) for each in found] == [
        ("sample", "module"),
        ("sample.Parser", "class"),
        ("sample.Parser.parse", "method"),
        ("sample.conditional", "function"),
        ("sample.fallback", "function"),
        ("sample.Parser._hidden", "method"),
    ]
    assert not marker.exists()
    parse = found[2]
    assert parse.text == "Return the tree that the given text stands for."
    assert (parse.module, parse.package, parse.id) == ("sample", "sample", "sample.Parser.parse#1")
    assert files[0][1].read_text().splitlines()[parse.line - 1].strip() == "def parse(self, text):"


def test_repeated_texts_and_texts_without_words_are_left_out(tmp_path, monkeypatch):
    _, path = _write(
        tmp_path / "sample.py",
        '''
        def one():
            """Return the number of rows that matched."""

        def two():
            """return the number  of ROWS that matched"""

        def short():
            """See above."""

        def table():
            """a | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 of the big table"""
        ''',
    )
    assert _titles(monkeypatch, [("sample", path)]) == ["sample.one"]


def test_what_is_not_python_is_passed_over(tmp_path, monkeypatch):
    files = [
        _write(tmp_path / "old.py", 'print "this was valid once"\n'),
        _write(tmp_path / "good.py", '"""A module that can be parsed without any trouble."""\n'),
        ("gone", tmp_path / "gone.py"),
    ]
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\x00\xff\x00\xff")
    assert _titles(monkeypatch, [("binary", binary), *files]) == ["good"]


def test_texts_attached_by_numpy_are_found(tmp_path, monkeypatch):
    file = _write(
        tmp_path / "newdocs.py",
        '''
        add_newdoc("numpy._core", "array", """
            array($self, /)
            --

            Create an array from any object that is like one.
            """)
        add_newdoc("numpy._core", "ndarray", ("shape", """Lengths of the dimensions of the array, as a tuple."""))
        add_newdoc("numpy._core", "dtype", [("kind", """A character that tells the general kind of data."""),
                                            ("names", """Ordered list of the names of all the fields.""")])
        add_newdoc(name, "computed", """Not a constant name, so it is passed over here.""", 1)
        ''',
    )
    assert _titles(monkeypatch, [file]) == [
        "newdocs.array", "newdocs.ndarray.shape", "newdocs.dtype.kind", "newdocs.dtype.names",
    ]  # fmt: skip
    assert corpus.passages(1)[0].text == "Create an array from any object that is like one."


def test_the_language_reference_is_found(tmp_path, monkeypatch):
    _, path = _write(tmp_path / "topics.py", "topics = {'assert': 'Assertions put checks into a program cheaply.'}\n")
    monkeypatch.setattr(corpus, "source_files", lambda: [("pydoc_data.topics", path)])
    (passage,) = corpus.passages(10)
    assert (passage.title, passage.kind) == ("pydoc_data.topics.assert", "reference")


def test_private_names_come_last_and_only_if_there_is_room(tmp_path, monkeypatch):
    names = ("_alpha", "beta", "_gamma", "delta")
    text = "".join(f'def {name}():\n    """The whole purpose of {name} is a secret."""\n' for name in names)
    file = _write(tmp_path / "sample.py", text)
    assert _titles(monkeypatch, [file]) == ["sample.beta", "sample.delta", "sample._alpha", "sample._gamma"]
    assert _titles(monkeypatch, [file], 3) == ["sample.beta", "sample.delta", "sample._alpha"]
    assert _titles(monkeypatch, [file], 1) == ["sample.beta"]


def test_ids_are_distinct_and_progress_rises():
    counts: list[int] = []
    found = corpus.passages(1500, counts.append)
    assert len(found) == 1500
    assert len({passage.id for passage in found}) == 1500
    assert len({" ".join(passage.text.casefold().split()) for passage in found}) == 1500
    assert counts == sorted(counts)
    assert counts[-1] == 1500
    assert all(passage.text and len(passage.text) <= PASSAGE_CHARACTERS_MAX for passage in found)
    assert found == corpus.passages(1500)


def test_files_are_those_of_library_and_packages_but_not_their_tests():
    files = corpus.source_files()
    modules = [module for module, _ in files]
    assert len(modules) > 1000
    assert {"asyncio.tasks", "json", "pydoc_data.topics", "numpy.linalg._linalg"} <= set(modules)
    assert not any(corpus.NOT_READ.intersection(module.split(".")) for module in modules)
    assert modules.index("numpy") < modules.index("numba") < modules.index("hypothesis")
    assert modules.index("json") < modules.index("numpy")


def test_first_sentence():
    assert corpus.first_sentence("Do a thing, i.e.\nthis one! Then more.\n\nRest.") == "Do a thing, i.e."
    assert corpus.first_sentence("No end\nat all\n\nRest.") == "No end at all"


@pytest.mark.slow
def test_this_machine_has_20_000_passages():
    assert len(corpus.passages(20_000)) == 20_000
