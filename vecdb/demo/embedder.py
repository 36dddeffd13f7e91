"""Static text embeddings of 256 dimensions, from the model inside the ``wordllama`` wheel: no network, no accelerator.

A text's vector is the mean of its tokens' vectors, scaled to length 1.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.errors import FailedPrecondition, InvalidArgument
from vecdb.types import F32Array

BATCH_TEXTS = 256
HOW_TO_INSTALL = (
    "the text embedding model is not installed: it is the Python package wordllama, in vecdb's extra 'demo'"
)


class Embedder:
    """A loaded model. Safe to use from one thread at a time.

    Attributes
    ----------
    dim
        Dimensions of every vector.
    """

    __slots__ = ("_table", "_tokenizer", "dim")

    def __init__(self) -> None:
        """Load the model from the installed package.

        Raises
        ------
        FailedPrecondition
            ``wordllama`` is not installed; the message says how to.
        """
        model = _load()
        self._tokenizer = model.tokenizer
        self._tokenizer.no_padding()
        self._table: F32Array = model.embedding
        self.dim = int(self._table.shape[1])

    def embed(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> F32Array:
        """The vectors of ``texts``.

        Parameters
        ----------
        texts
            n texts with at least one visible character each.
        progress
            Called after each batch with the number of its texts.

        Returns
        -------
        F32Array
            (n, dim) float32, C order, rows of length 1.

        Raises
        ------
        InvalidArgument
            A text is empty.
        """
        vectors = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = list(texts[start : start + BATCH_TEXTS])
            vectors[start : start + len(batch)] = self._embed_batch(batch, start)
            if progress is not None:
                progress(len(batch))
        return vectors

    def _embed_batch(self, batch: list[str], first: int) -> F32Array:
        encoded = [each.ids for each in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        counts = np.array([len(tokens) for tokens in encoded])
        if not counts.all():
            at = first + int(np.argmin(counts))
            raise InvalidArgument(
                f"text {at} is empty: there is nothing to embed", field="text", value=batch[at - first]
            )
        tokens = np.fromiter((token for text in encoded for token in text), np.int64, int(counts.sum()))
        # The model may know fewer vectors than its tokenizer knows tokens.
        np.minimum(tokens, self._table.shape[0] - 1, out=tokens)
        sums = np.add.reduceat(self._table[tokens], np.cumsum(counts) - counts, axis=0)
        vectors: F32Array = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return vectors


def _load() -> Any:
    """The model; what it would write to the log and to standard error is kept back."""
    quiet = logging.NullHandler()
    root = logging.getLogger()
    # The package configures the root logger when it is imported, unless somebody has done so before.
    root.addHandler(quiet)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import wordllama
            except ModuleNotFoundError as error:
                raise FailedPrecondition(HOW_TO_INSTALL, field="wordllama", value=str(error)) from None
            # The tokenizer is looked for only under ``cache_dir``, where the wheel does not put it by itself.
            folder = Path(wordllama.__file__).parent
            return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    finally:
        root.removeHandler(quiet)
