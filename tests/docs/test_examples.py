"""Every Python example of the README and of docs/ runs as it stands, page by page, in an empty directory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[tuple[int, str]]:
    """The runnable blocks and the lines they begin at."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start(2)), found[2]) for found in BLOCK.finditer(text) if "no-run" not in found[1]
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for line, source in blocks(page):
        code = compile("\n" * line + source, str(page), "exec")
        exec(code, names)
    assert "Traceback" not in capsys.readouterr().err
    for value in names.values():
        close = getattr(value, "close", None)
        if type(value).__module__.startswith("vecdb.") and close is not None:
            close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_examples_are_seen():
    assert sum(len(blocks(page)) for page in PAGES) >= 6, sys.path
