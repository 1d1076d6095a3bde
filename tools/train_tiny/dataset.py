"""Owns the training data on disk: shards of packed rows, written by several processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .chatml import segments
from .corpus import mixture

ROW = 2048
DOCUMENTS = 8192
_OPEN = 24
OTHER_WEIGHT = 0.1
"""Weight in the loss of tokens that the model does not write, such as the user's."""


class Rows(NamedTuple):
    """Packed rows: tokens, positions within documents, and 1 for tokens that the model writes."""

    tokens: NDArray[np.uint16]
    places: NDArray[np.int16]
    learn: NDArray[np.uint8]


def _documents(
    tokenizer: Tokenizer, seed: int, count: int
) -> Iterator[tuple[list[int], list[int]]]:
    r = Random(seed)
    while count > 0:
        pieces, ends = [], []
        for _ in range(min(count, 256)):
            pieces += segments(mixture.document(r))
            ends.append(len(pieces))
        count -= len(ends)
        codes = tokenizer.encode_batch_fast([text for text, _ in pieces])
        start = 0
        for end in ends:
            tokens: list[int] = []
            learn: list[int] = []
            for code, (_, wanted) in zip(codes[start:end], pieces[start:end], strict=True):
                tokens += code.ids
                learn += [int(wanted)] * len(code.ids)
            start = end
            if len(tokens) <= ROW:
                yield tokens, learn


def pack(documents: Iterator[tuple[list[int], list[int]]]) -> Rows:
    """Put documents into rows, each into the fullest open row that has room."""
    done: list[list[tuple[list[int], list[int]]]] = []
    open_rows: list[tuple[int, list[tuple[list[int], list[int]]]]] = []
    for item in documents:
        size = len(item[0])
        fits = [i for i, (used, _) in enumerate(open_rows) if used + size <= ROW]
        if fits:
            best = max(fits, key=lambda i: open_rows[i][0])
            used, row = open_rows[best]
            row.append(item)
            open_rows[best] = (used + size, row)
            continue
        if len(open_rows) >= _OPEN:
            fullest = max(range(len(open_rows)), key=lambda i: open_rows[i][0])
            done.append(open_rows.pop(fullest)[1])
        open_rows.append((size, [item]))
    done += [row for used, row in open_rows if used > ROW * 3 // 4]
    return _arrays(done)


def _arrays(rows: list[list[tuple[list[int], list[int]]]]) -> Rows:
    tokens = np.zeros((len(rows), ROW), np.uint16)
    places = np.zeros((len(rows), ROW), np.int16)
    learn = np.zeros((len(rows), ROW), np.uint8)
    for i, row in enumerate(rows):
        at = 0
        for ids, wanted in row:
            end = at + len(ids)
            tokens[i, at:end] = ids
            places[i, at:end] = np.arange(len(ids))
            learn[i, at:end] = wanted
            at = end
    return Rows(tokens, places, learn)


def write_shard(task: tuple[str, str, int, int]) -> None:
    """Write one shard; ``task`` is the tokenizer, the folder, the seed and the shard's number."""
    tokenizer_file, folder, seed, index = task
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(tokenizer_file)
    rows = pack(_documents(tokenizer, seed * 1_000_003 + index, DOCUMENTS))
    part = Path(folder, f"{index:05d}.part.npz")
    np.savez(part, tokens=rows.tokens, places=rows.places, learn=rows.learn)
    part.rename(Path(folder, f"{index:05d}.npz"))


class Writers:
    """Processes that write shards while training reads the first ones."""

    def __init__(
        self, tokenizer_file: Path, folder: Path, seed: int, shards: int, workers: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._pool = get_context("spawn").Pool(workers)
        tasks = [(str(tokenizer_file), str(folder), seed, i) for i in range(shards)]
        self._result = self._pool.map_async(write_shard, tasks, chunksize=1)
        self._folder, self._shards = folder, shards

    def rows(self) -> Iterator[Rows]:
        """Every shard in order, again from the first when all have been read."""
        while True:
            for i in range(self._shards):
                path = self._folder / f"{i:05d}.npz"
                while not path.exists():
                    if self._result.ready():
                        self._result.get()
                    time.sleep(0.05)
                with np.load(path) as data:
                    yield Rows(data["tokens"], data["places"], data["learn"])

    def close(self) -> None:
        """Stop the processes."""
        self._pool.terminate()
        self._pool.join()


def batches(shards: Iterator[Rows], size: int) -> Iterator[Rows]:
    """Batches of ``size`` rows."""
    left: Rows | None = None
    for rows in shards:
        if left is not None and len(left.tokens):
            rows = Rows(*(np.concatenate(pair) for pair in zip(left, rows, strict=True)))
        whole = len(rows.tokens) // size * size
        for at in range(0, whole, size):
            yield Rows(*(array[at : at + size] for array in rows))
        left = Rows(*(array[whole:] for array in rows))
