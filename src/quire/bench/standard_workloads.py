"""The standard workloads by name, the same token ids for every engine. Imports no torch.

Published figures of other engines exist for these token ids, so the order in which random numbers
are drawn is part of the definition. Only a small vocabulary or a scale changes them.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

SHARED_LEN = 2048  # tokens that all prompts of `prefix` begin with
FIRST_ID, LAST_ID = 300, 9999  # ordinary tokens of every large vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Requests that all arrive at once, each with one output of exactly its length."""

    name: str
    prompts: list[list[int]]
    output_lens: list[int]
    shared_len: int = 0  # tokens that all prompts begin with

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def num_output_tokens(self) -> int:
        return sum(self.output_lens)

    def check_fits(self, max_model_len: int) -> None:
        """``ValueError`` for requests that exceed ``max_model_len``: cut, they would be others."""
        pairs = zip(self.prompts, self.output_lens, strict=True)
        num_prompt, num_output = max(((len(p), n) for p, n in pairs), key=sum)
        if num_prompt + num_output > max_model_len:
            share = max_model_len / (num_prompt + num_output)
            raise ValueError(
                f"workload {self.name} has a prompt of {num_prompt} tokens and {num_output} of "
                f"output, more than the {max_model_len} of max_model_len; raise --max-model-len, "
                f"or shorten everything with --scale {max(0.001, share * 0.95):.2g}"
            )


def standard_workload(name: str, *, scale: float = 1.0, vocab_size: int = LAST_ID + 1) -> Workload:
    """``name`` is one of `NAMES` or decodeN. ``scale`` multiplies all lengths, not the number of
    requests; ids of a small vocabulary are drawn from its upper end."""
    if not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}; it must be above 0 and at most 1")
    if vocab_size < 2:
        raise ValueError(
            f"a vocabulary of {vocab_size} tokens is too small for a standard workload"
        )
    rng = random.Random(0)
    last = min(LAST_ID, vocab_size - 1)
    first = min(FIRST_ID, last // 2)

    def ids(count: int) -> list[int]:
        return [rng.randint(first, last) for _ in range(count)]

    def length(full: int) -> int:
        return max(1, round(full * scale))

    if name == "nano":
        prompts = [ids(length(rng.randint(100, 1024))) for _ in range(256)]
        output_lens = [length(rng.randint(100, 1024)) for _ in prompts]
        return Workload(name=name, prompts=prompts, output_lens=output_lens)
    shape = _shape(name)
    head = ids(length(shape.shared_len)) if shape.shared_len else []
    prompts = [head + ids(length(shape.own_len)) for _ in range(shape.num_requests)]
    return Workload(
        name=name,
        prompts=prompts,
        output_lens=[length(shape.output_len)] * len(prompts),
        shared_len=len(head),
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    num_requests: int
    own_len: int
    output_len: int
    shared_len: int = 0


_SHAPES = {
    "single": _Shape(1, 128, 256),
    "prefix": _Shape(256, 64, 64, SHARED_LEN),
    "prefill": _Shape(64, 4096, 1),
    "long": _Shape(16, 16384, 128),
}
NAMES = ("nano", *_SHAPES)


def _shape(name: str) -> _Shape:
    if name in _SHAPES:
        return _SHAPES[name]
    decode = re.fullmatch(r"decode([1-9]\d{0,4})", name)
    if decode is None:
        raise ValueError(
            f"there is no workload {name!r}; there are {', '.join(NAMES)}, and decodeN for N "
            "requests, as in decode256"
        )
    return _Shape(int(decode[1]), 64, 256)
