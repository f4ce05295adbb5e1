"""Tokens that share what their letters say while they are trained: the structure behind `--ngrams`.

A token's embedding is then its own row plus the scaled sum of the embeddings of its character n-grams, so that a rare
token learns from every token it shares letters with (fastText's subwords, arXiv:1607.04606):

    table [vocab, size] = tokens [vocab, size] + matrix [vocab, n-grams] @ grams [n-grams, size]

It exists in training alone. The table is what a checkpoint stores, so neither models nor exports know of it.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.text.processor import Processor

TOKENS = "embed.tokens.weight"  # the weight that the sum is folded into
GRAMS = "embed.ngrams.weight"  # the n-grams' own embeddings, known to trainers alone


@dataclass(frozen=True, kw_only=True)
class NgramMatrix:
    """The constant sparse matrix [vocab, n-grams]: `values` float32 at (`rows`, `columns`), both int64.

    Ordered by row, then column; no place occurs twice.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]
    shape: tuple[int, int]

    @property
    def row_starts(self) -> NDArray[np.int64]:
        """Where each row's values start, and the last one's end: int64 [vocab + 1], as CSR wants it."""
        return np.searchsorted(self.rows, np.arange(self.shape[0] + 1)).astype(np.int64)

    def transposed(self) -> "NgramMatrix":
        """Return the matrix [n-grams, vocab]."""
        order = np.lexsort((self.rows, self.columns))
        return NgramMatrix(
            rows=self.columns[order], columns=self.rows[order], values=self.values[order], shape=self.shape[::-1]
        )


def ngram_matrix(processor: Processor, longest: int) -> NgramMatrix | None:
    """Return which tokens hold which n-grams of 1 to `longest` characters; None where no two tokens share any.

    Each occurrence in a token counts 1 / sqrt(occurrences in that token), which keeps the sum's variance at that of
    one embedding. N-grams of a single token say nothing about another and are dropped. Columns are numbered in the
    order in which the tokens, by id, first hold them. `longest` 0 gives None.
    """
    found = [_ngrams(text, longest) for text in processor.token_texts()] if longest else []
    tokens_with = Counter(gram for grams in found for gram in grams)
    numbers: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, grams in enumerate(found):
        shared = {gram: count for gram, count in grams.items() if tokens_with[gram] > 1}
        scale = 1 / math.sqrt(sum(shared.values()) or 1)
        numbered = sorted((numbers.setdefault(gram, len(numbers)), count) for gram, count in shared.items())
        rows += [row] * len(numbered)
        columns += [column for column, _ in numbered]
        values += [count * scale for _, count in numbered]
    if not numbers:
        return None
    return NgramMatrix(
        rows=np.array(rows, np.int64),
        columns=np.array(columns, np.int64),
        values=np.array(values, np.float32),
        shape=(len(found), len(numbers)),
    )


def initial_grams(matrix: NgramMatrix, size: int, seed: int) -> NDArray[np.float32]:
    """Return the n-grams' first embeddings [n-grams, size], drawn as those of tokens are: deviation size**-0.5."""
    # A child of the seed: `initial_weights` draws from the seed itself, and the two must not repeat each other.
    generator = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    return generator.standard_normal((matrix.shape[1], size), np.float32) * np.float32(size**-0.5)


def _ngrams(text: str, longest: int) -> Counter[str]:
    return Counter(
        text[start : start + length]
        for length in range(1, min(longest, len(text)) + 1)
        for start in range(len(text) - length + 1)
    )
