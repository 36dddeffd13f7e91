"""Writing for people: wrapped paragraphs, aligned facts, search results, and progress bars where there is a terminal.

Text goes to standard output, bars to standard error and only if that is a terminal. Nothing is coloured unless standard
output is a terminal and ``NO_COLOR`` is unset.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vecdb.demo.screen import Answer

WIDTH_MAX = 100
WIDTH_MIN = 40
BOLD, DIM, CYAN = "1", "2", "36"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """``text`` on one line without control characters: stored text must not steer the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


class Terminal:
    """Standard output and standard error, as a person sees them. A ``Screen`` of the demo."""

    def __init__(self) -> None:
        columns = shutil.get_terminal_size(fallback=(80, 24)).columns
        self.width = max(WIDTH_MIN, min(WIDTH_MAX, columns))
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def heading(self, text: str) -> None:
        """A new part."""
        rule = "─" if _encodes("─") else "-"
        print(f"\n{self._styled(text, BOLD)}\n{self._styled(rule * len(text), DIM)}", flush=True)

    def say(self, text: str) -> None:
        """A paragraph."""
        print(self._wrapped(text, ""), flush=True)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Two columns: names, and what they are."""
        listed = list(facts)
        column = max((len(name) for name, _ in listed), default=0) + 2
        for name, value in listed:
            lines = textwrap.wrap(value, self.width - 2 - column) or [""]
            # Padded before it is styled: escape sequences have no width.
            print(f"  {self._styled(name.ljust(column), DIM)}{lines[0]}")
            for line in lines[1:]:
                print(f"  {' ' * column}{line}")
        sys.stdout.flush()

    def answers(self, question: str, answers: Iterable[Answer], note: str = "") -> None:
        """A question, and below it what was found, best first."""
        print()
        print(self._styled(self._wrapped(question, ""), BOLD) + (f"  {self._styled(note, DIM)}" if note else ""))
        found = list(answers)
        for answer in found:
            self.answer(answer)
        if not found:
            print("  nothing")
        sys.stdout.flush()

    def answer(self, answer: Answer) -> None:
        """One hit."""
        title = textwrap.shorten(printable(answer.title), self.width - 10, placeholder="...")
        print(f"  {answer.score:6.3f}  {self._styled(title, CYAN)}")
        if answer.text:
            print(self._wrapped(printable(answer.text), " " * 10))

    def commands(self, lines: Iterable[str]) -> None:
        """Lines to type."""
        print()
        for line in lines:
            print(f"  {self._styled(line, CYAN)}")
        sys.stdout.flush()

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str) -> Iterator[ProgressBar]:
        """A bar on standard error while the block runs."""
        with ProgressBar(label, total, unit, self.width) as bar:
            yield bar

    @contextmanager
    def steps(self, label: str) -> Iterator[Callable[[str], None]]:
        """A count on standard error while the block runs; it gives what is called with the name of each step."""
        with self.bar(label, None, "steps") as bar:

            def begin(name: str) -> None:
                bar.note(name)
                bar.advance(1)

            yield begin

    def _wrapped(self, text: str, indent: str) -> str:
        return textwrap.fill(text, self.width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._coloured else text


class SilentScreen:
    """A ``Screen`` that shows progress only: standard output belongs to a machine."""

    def heading(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Nothing."""

    def answers(self, question: str, answers: Iterable[Answer], note: str = "") -> None:
        """Nothing."""

    def commands(self, lines: Iterable[str]) -> None:
        """Nothing."""

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str) -> Iterator[ProgressBar]:
        """A bar on standard error while the block runs."""
        with ProgressBar(label, total, unit, WIDTH_MAX) as bar:
            yield bar


class ProgressBar:
    """A bar with rate and time left, gone when it is done; nothing at all where standard error is no terminal."""

    def __init__(self, label: str, total: int | None, unit: str, width: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            known = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left"
            unknown = ("{desc} {n:,.0f}{unit}, " if unit else "{desc} ") + "{elapsed}{postfix}"
            self._bar = tqdm(
                total=total, desc=f"  {label}", unit=f" {unit}", unit_scale=True, ncols=width, leave=False,
                mininterval=0.05, bar_format=unknown if total is None else known,
            )  # fmt: skip

    def advance(self, count: int) -> None:
        """``count`` more units are done."""
        if self._bar is not None:
            self._bar.update(count)

    def note(self, text: str) -> None:
        """What is being done now."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _encodes(text: str) -> bool:
    """Whether standard output can show ``text``."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
