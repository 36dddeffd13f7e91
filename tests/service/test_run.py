"""A server as a process: it says when it is ready, and a signal ends it with everything kept."""

import signal
import subprocess
import sys
import threading

import pytest

from vecdb.client import connect
from vecdb.version import __version__

PROGRAM = """
import sys
from pathlib import Path
from vecdb.service import ServeOptions, ServerOptions, run_server
server = ServerOptions(address="127.0.0.1:0", grace_s=5.0)
sys.exit(run_server(ServeOptions(Path(sys.argv[1]), server, warm_up=False)))
"""


def start(path):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith(f"vecdb {__version__} serves {path} on 127.0.0.1:")
    return process, line.split()[-1]


def end(process, number):
    process.send_signal(number)
    try:
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.stdout.close()
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_everything_is_there_again(tmp_path, number):
    path = tmp_path / "db"
    process, address = start(path)
    with connect(address) as database:
        docs = database.create_collection("docs", dim=2)
        docs.upsert([1, "二"], [[1, 0], [0, 1]], [{"a": 1}, {}])
        assert end(process, number) == 0
    process, address = start(path)
    with connect(address) as database:
        assert [point.payload for point in database.collection("docs").get([1, "二"])] == [{"a": 1}, {}]
        assert end(process, number) == 0


def test_a_signal_during_a_long_wait_does_not_wait_for_it(tmp_path):
    process, address = start(tmp_path / "db")
    failures = []

    def wait(docs):
        try:
            docs.search([1.0], read_after_seq=10**6)
        except Exception as error:
            failures.append(type(error).__name__)

    with connect(address) as database:
        docs = database.create_collection("docs", dim=1)
        waiting = threading.Thread(target=wait, args=(docs,))
        waiting.start()
        process.send_signal(signal.SIGTERM)
        # A second signal ends the grace.
        threading.Timer(1.0, lambda: process.send_signal(signal.SIGTERM)).start()
        assert process.wait(timeout=30) == 0
        waiting.join(timeout=30)
    process.stdout.close()
    assert len(failures) == 1
