"""The examples of docs/serving.md run as they stand, against a server."""

import re
from pathlib import Path

from tests.contract.memory_database import MemoryDatabase
from tests.service.running import serving

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
BLOCK = re.compile(r"^```python no-run server\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_examples_run(loop, capsys):
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 3
    names = {"__name__": "__main__"}
    with serving(loop, MemoryDatabase()) as server:
        for source in blocks:
            assert "localhost:7700" in source
            exec(compile(source.replace("localhost:7700", server.address), str(PAGE), "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["1", "1", "query"]
    assert said[-1] == "query dim = 3 2"
