"""The rules of style that no linter knows, checked over the source tree; ``main`` prints what breaks them.

A rule is a function from one file to its findings, named in ``RULES``; each is shown to find something by
``test_style.py``. A finding fails the check unless it is a note.

Rules
-----
syscall
    Below the engine's interface, only ``storage/io.py`` makes file syscalls. ``SYSCALL_MODULES`` names the exceptions.
module-name
    Modules are nouns of the domain: none is named after its being useful (``FORBIDDEN_NAMES``).
docstring
    Every module that holds code says first what it is.
unfinished, history
    No markers of unfinished work, no ticket numbers.
code-execution
    No pickle, eval, exec or ``allow_pickle``.
silent-except
    An exception of any kind is never swallowed without a word.
machine-path
    No absolute path of somebody's machine.
length
    Files above ``LINES_NOTED`` lines are listed; above ``LINES_MAX`` they fail.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LINES_NOTED = 400
LINES_MAX = 600

TREES = ("vecdb", "tests", "proto", "cuda", "bench", "docs", ".ci")
SUFFIXES = (".py", ".pyi", ".proto", ".cu", ".cuh", ".md", ".toml")
LOOSE_FILES = ("Makefile", "README.md", "pyproject.toml", ".ci/run")
NOT_WRITTEN_BY_HAND = ("vecdb/v1/", "bench/out/")

ENGINE_PACKAGES = ("storage", "index", "segment", "query", "engine", "kernels")
SYSCALL_MODULES = frozenset(
    {
        "vecdb/storage/io.py",
        # Memory of no file.
        "vecdb/kernels/memory.py",
        "vecdb/kernels/cpu/cache.py",  # the private directory of compiled kernels, which is no part of a database
    }
)
SYSCALLS = frozenset(
    """
    open io.open io.FileIO io.open_code codecs.open
    os.open os.fdopen os.close os.read os.write os.pread os.pwrite os.readv os.writev os.preadv os.pwritev os.sendfile
    os.copy_file_range os.lseek os.fsync os.fdatasync os.sync os.posix_fallocate os.posix_fadvise os.truncate
    os.ftruncate os.rename os.renames os.replace os.link os.symlink os.readlink os.unlink os.remove os.mkdir
    os.makedirs os.rmdir os.removedirs os.mkfifo os.listdir os.scandir os.walk os.fwalk os.stat os.fstat os.lstat
    os.statvfs os.fstatvfs os.utime os.chmod os.fchmod os.chown os.access os.lockf os.dup os.dup2
    os.path.exists os.path.isfile os.path.isdir os.path.getsize os.path.getmtime
    mmap.mmap
    numpy.memmap numpy.load numpy.save numpy.savez numpy.savez_compressed numpy.loadtxt numpy.savetxt numpy.genfromtxt
    numpy.fromfile numpy.lib.format.open_memmap numpy.lib.format.read_array numpy.lib.format.write_array
    """.split()  # noqa: SIM905 - a list of 70 strings reads worse
)
SYSCALL_LIBRARIES = ("shutil", "tempfile", "fcntl", "glob")
SYSCALL_METHODS = frozenset({"write_text", "write_bytes", "read_text", "read_bytes", "tofile"})

FORBIDDEN_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "base", "core", "manager", "impl"})
FORBIDDEN_WORDS = FORBIDDEN_NAMES - {"base", "core"}
"""Not even as a part of a name: ``graph_utils``."""

CODE_LOADERS = frozenset({"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"})

_UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
_HISTORY = re.compile(r"\b(?:issue|ticket|milestone|sprint)\s+#?\d+\b", re.IGNORECASE)
_MACHINE_PATH = re.compile(r"(?<![\w.~$}*)/-])/(?:work|root|home|Users|tmp)/\w")


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that breaks a rule. A note is printed but does not fail the check."""

    rule: str
    path: str
    line: int
    text: str
    note: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'note: ' if self.note else ''}{self.text} [{self.rule}]"


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its path from the root with forward slashes, its text, and its syntax tree if it is Python."""

    path: str
    text: str
    tree: ast.Module | None

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """Parse ``text`` as what the suffix of ``path`` says."""
        return cls(path, text, ast.parse(text, path) if path.endswith(".py") else None)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path."""
        return PurePosixPath(self.path).parts

    def finding(self, rule: str, line: int, text: str) -> Finding:
        """A finding in this file."""
        return Finding(rule, self.path, line, text)


def imported_names(tree: ast.Module) -> dict[str, str]:
    """What each name that is bound by an import, anywhere in the module, stands for in full."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
                else:
                    first = alias.name.partition(".")[0]
                    names[first] = first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The full dotted name that an expression spells, or "" if it is none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _of_vecdb(source: Source) -> bool:
    return source.parts[0] == "vecdb"


def syscalls(source: Source) -> Iterator[Finding]:
    """File syscalls in the engine's packages, outside the modules that may make them."""
    if source.tree is None or not _of_vecdb(source) or source.path in SYSCALL_MODULES:
        return
    if len(source.parts) < 3 or source.parts[1] not in ENGINE_PACKAGES:
        return
    names = imported_names(source.tree)
    for statement in source.tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[statement.name] = f"{source.path}.{statement.name}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            for module in modules:
                if module.partition(".")[0] in SYSCALL_LIBRARIES:
                    yield source.finding("syscall", node.lineno, f"{module} belongs in storage/io.py")
        elif isinstance(node, ast.Call):
            called = _called_syscall(node.func, names)
            if called:
                yield source.finding("syscall", node.lineno, f"{called} belongs in storage/io.py")


def _called_syscall(func: ast.expr, names: dict[str, str]) -> str:
    name = dotted(func, names)
    if name in SYSCALLS:
        return name
    if not isinstance(func, ast.Attribute):
        return ""
    if func.attr in SYSCALL_METHODS:
        return f".{func.attr}()"
    receiver = func.value
    if isinstance(receiver, ast.Call) and dotted(receiver.func, names) in ("pathlib.Path", "Path"):
        return f"Path().{func.attr}()"
    return ""


def module_names(source: Source) -> Iterator[Finding]:
    """Modules and packages that say nothing by their names."""
    if source.tree is None or source.parts[0] not in ("vecdb", "bench"):
        return
    path = PurePosixPath(source.path)
    name = path.parent.name if path.name == "__init__.py" else path.stem
    if name in FORBIDDEN_NAMES or FORBIDDEN_WORDS.intersection(name.split("_")):
        yield source.finding("module-name", 1, f"{name!r} is no noun of the domain")


def docstrings(source: Source) -> Iterator[Finding]:
    """Modules that hold code and do not say what they are. An empty ``__init__.py`` is no module yet."""
    if source.tree is not None and source.text.strip() and ast.get_docstring(source.tree) is None:
        yield source.finding("docstring", 1, "the module has no docstring")


def markers(source: Source) -> Iterator[Finding]:
    """Markers of unfinished work, numbers of tickets, and paths of somebody's machine."""
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := _UNFINISHED.search(line):
            yield source.finding("unfinished", number, f"{found.group()}: finish it or leave it out")
        if found := _HISTORY.search(line):
            yield source.finding("history", number, f"{found.group()!r} tells the project's history")
        if found := _MACHINE_PATH.search(line):
            yield source.finding("machine-path", number, f"{found.group()!r}... is a path of one machine")


def code_execution(source: Source) -> Iterator[Finding]:
    """Whatever turns data into code."""
    if source.tree is None or source.parts[0] not in ("vecdb", "bench"):
        return
    names = imported_names(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            for module in modules:
                if module.partition(".")[0] in CODE_LOADERS:
                    yield source.finding("code-execution", node.lineno, f"{module} executes what it reads")
        elif isinstance(node, ast.Call):
            name = dotted(node.func, names).removeprefix("builtins.")
            if name in ("eval", "exec"):
                yield source.finding("code-execution", node.lineno, f"{name}() executes text")
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not allowed:
                    yield source.finding("code-execution", node.lineno, "allow_pickle executes what it reads")


def silent_excepts(source: Source) -> Iterator[Finding]:
    """Handlers of every exception that do nothing."""
    if source.tree is None:
        return
    names = imported_names(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _broad(node.type) and all(map(_does_nothing, node.body)):
            yield source.finding("silent-except", node.lineno, "every exception is swallowed without a word")
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func, names).rpartition(".")[2] == "suppress"
            and any(map(_broad, node.args))
        ):
            yield source.finding("silent-except", node.lineno, "every exception is suppressed without a word")


def _broad(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in kinds)


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def lengths(source: Source) -> Iterator[Finding]:
    """Python files that are long, and those that are too long."""
    lines = source.text.count("\n")
    if source.tree is not None and lines > LINES_NOTED:
        text = f"{lines} lines (noted above {LINES_NOTED}, refused above {LINES_MAX})"
        yield Finding("length", source.path, lines, text, note=lines <= LINES_MAX)


RULES: tuple[Callable[[Source], Iterable[Finding]], ...] = (
    syscalls,
    module_names,
    docstrings,
    markers,
    code_execution,
    silent_excepts,
    lengths,
)


def sources(root: Path) -> Iterator[Source]:
    """The files under ``root`` that people write, in order of path."""
    paths = {path for tree in TREES for path in root.joinpath(tree).rglob("*") if path.suffix in SUFFIXES}
    paths.update(path for name in LOOSE_FILES if (path := root / name).is_file())
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        if "__pycache__" not in path.parts and not name.startswith(NOT_WRITTEN_BY_HAND):
            yield Source.of(name, path.read_text(encoding="utf-8"))


def check(files: Iterable[Source]) -> list[Finding]:
    """What breaks the rules in ``files``, in their order."""
    return [finding for source in files for rule in RULES for finding in rule(source)]


def main() -> int:
    """Check the tree that this file lies in; 1 if anything but notes was found."""
    findings = check(sources(Path(__file__).resolve().parents[2]))
    for finding in findings:
        print(finding)
    return int(any(not finding.note for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
