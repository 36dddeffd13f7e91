"""The embedder: the model's own answer, offline and quiet."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from vecdb.demo.embedder import Embedder
from vecdb.errors import FailedPrecondition, InvalidArgument

TEXTS = ["How do I parse a date?", "退货政策", "x", "a much longer text " * 40]


def test_a_missing_model_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(FailedPrecondition, match="wordllama, in vecdb's extra 'demo'"):
        Embedder()
    assert logging.getLogger().handlers == handlers


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    pytest.importorskip("wordllama", reason="the embedding model is in the extra `demo`")
    return Embedder()


def test_vectors_are_the_models_own(embedder):
    from pathlib import Path

    import wordllama

    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dim) == (4, 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, model.embed(TEXTS, norm=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_batches_do_not_change_the_answer_and_are_reported(embedder):
    texts = [f"text number {number} of many" for number in range(600)]
    done: list[int] = []
    vectors = embedder.embed(texts, done.append)
    assert sum(done) == 600
    np.testing.assert_allclose(
        vectors[[0, 255, 256, 599]], embedder.embed([texts[i] for i in (0, 255, 256, 599)]), atol=1e-6
    )


def test_an_empty_text_is_refused_by_position(embedder):
    with pytest.raises(InvalidArgument, match="text 1 is empty"):
        embedder.embed(["words", "", "words"])
    assert embedder.embed([]).shape == (0, 256)


def test_loading_is_quiet_and_needs_no_network():
    pytest.importorskip("wordllama", reason="the embedding model is in the extra `demo`")
    program = (
        "import json, logging, socket\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from vecdb.demo.embedder import Embedder\n"
        "Embedder().embed(['words'])\n"
        "root = logging.getLogger()\n"
        "print(json.dumps([len(root.handlers), root.level]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == [0, logging.WARNING]
