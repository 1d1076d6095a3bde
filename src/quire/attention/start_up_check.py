"""The start-up check: kernels of another package against our own, on a problem of a model's shape.

Every row has two *loud* keys, the first and the last that its last query sees, which take a large
share of the weights; every token that no query of a row may see is louder still. So a kernel that
is wrong by one token at either end, reads a wrong block or forgets the window is far off, while one
that only rounds otherwise is not. Knows no backend.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quire.attention.backend import AttentionBackend, AttentionProblem, PlanOfNext
from quire.batch import Batch, GroupBatch
from quire.kernels.rehearsal import rehearse

logger = logging.getLogger(__name__)

_ROUNDINGS = 4  # of values below 1: the weights', partial sums' and the result's, and one to spare
_TILE = 128  # the most queries or keys that kernels take at once
_LONGEST_WINDOW = 4096  # that steps reach beyond; with a larger window every key is visible
_LOUD_SCORE, _HIDDEN_SCORE = 8.0, 12.0
_LOUD_VALUE, _HIDDEN_VALUE = 1.0, 4.0
_LONGEST_REASON = 300  # characters of another package's message; the log has all of it
_CALLS = 2  # layers share a plan, and a kernel must leave its counters as it found them


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStep:
    """A step to try: per row, how many tokens are in the cache, and how many queries follow."""

    name: str
    computed: tuple[int, ...]
    new: tuple[int, ...]
    is_mixed_graph: bool = False

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(c + n for c, n in zip(self.computed, self.new, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """The tensors of one step."""

    q: Tensor  # [T, H, D]
    kv_cache: Tensor  # [2, num_blocks, block_size, K, D]
    batch: Batch


def disagreements(
    theirs: type[AttentionBackend], ours: type[AttentionBackend], problem: AttentionProblem
) -> list[str]:
    """Why ``theirs`` must not be used for ``problem``; empty if it computes what ``ours`` does.

    Whatever the other package raises is a reason, too, and so is a lack of memory, wherever it
    occurs. Other exceptions of our own kernels are raised.
    """
    try:
        return _reasons(theirs, ours.build(problem), problem)
    except (_TheirError, torch.OutOfMemoryError) as error:
        logger.debug("start-up check", exc_info=True)
        raised = error.__cause__ or error
        return [f"{type(raised).__name__}: {str(raised)[:_LONGEST_REASON]}"]


class _TheirError(Exception):
    """Another package raised its ``__cause__``."""


@contextmanager
def _theirs() -> Iterator[None]:
    """Turns whatever another package raises into a `_TheirError`."""
    try:
        yield
    except Exception as error:
        raise _TheirError from error


def _reasons(
    theirs: type[AttentionBackend], ours: AttentionBackend, problem: AttentionProblem
) -> list[str]:
    with _theirs():
        their_backend = theirs.build(problem)
    tried = tuple(steps_to_try(problem))
    # One size of the cache for all steps, as in real use: some packages compile for it.
    num_blocks = max(sum(_block_counts(rows, problem)) for rows in tried)
    steps = tuple(_steps_taken(their_backend, problem, tried, num_blocks))
    if not steps:
        return ["it leaves every step that was tried to our own kernels"]
    if torch.device(problem.device).type == "cuda":
        rehearse(lambda: _run_ours(ours, problem, steps, num_blocks))
    return [
        reason
        for rows in steps
        for reason in _compare(their_backend, ours, problem, rows, num_blocks)
    ]


def steps_to_try(problem: AttentionProblem) -> Iterator[TrialStep]:
    """Decode rows, few and many, prompts, chunks with a history, and mixtures."""
    size = problem.block_size
    far = min(problem.window or 0, _LONGEST_WINDOW) + 5 * size + 3
    few = (0, size - 1, size, far)
    yield TrialStep(name="decode rows", computed=few, new=(1,) * len(few))
    many = tuple(range(0, 4 * size, 3))
    yield TrialStep(name="many decode rows", computed=many, new=(1,) * len(many))
    yield TrialStep(name="prompts", computed=(0, 0), new=(2 * size + 1, 5))
    # More than one tile of queries and of keys, whatever the block size.
    yield TrialStep(
        name="long prompts", computed=(0, far, 1), new=(2 * _TILE + 1, _TILE + 9, _TILE)
    )
    mixed = TrialStep(
        name="mixed rows",
        computed=(size + 2, far, 0, size + 5, far),
        new=(1, 1, size + 9, 2, 2 * size),
    )
    yield mixed
    yield replace(mixed, name="mixed rows in a graph", is_mixed_graph=True)
    yield from _long_steps(far)


def _long_steps(far: int) -> Iterator[TrialStep]:
    """Steps of so many tiles that backends for long prompts take them, of several sizes in turn.

    So what a kernel keeps of one step would show in the next.
    """
    yield TrialStep(name="a fresh prompt", computed=(0,), new=(17 * _TILE - 5,))
    yield TrialStep(
        name="chunks of many rows",
        computed=(0, far, 7, 0, 3 * _TILE, 0, _TILE // 2, 1, _TILE + 1, 0),
        new=tuple(_TILE * tiles + tiles % 5 for tiles in range(1, 11)),
    )
    yield TrialStep(name="a chunk", computed=(11 * _TILE + 3,), new=(16 * _TILE + 9,))
    yield TrialStep(
        name="long and short rows",
        computed=(far, 3, 5 * _TILE, far, 0, 0, 2 * _TILE - 1, 0, far),
        new=(1, 1, 2, 3 * _TILE + 7, 9 * _TILE, 5, 7 * _TILE - 1, 3, 20),
    )
    yield TrialStep(name="two prompts", computed=(0, far), new=(9 * _TILE, 8 * _TILE + 1))
    # Prompts so long that backends for the longest alone take them, between others.
    yield TrialStep(
        name="chunks of long texts",
        computed=(far, 160 * _TILE + 3, 96 * _TILE, 5),
        new=(1, 32 * _TILE + 9, 48 * _TILE + 1, _TILE + 2),
    )


def _steps_taken(
    theirs: AttentionBackend, problem: AttentionProblem, steps: Sequence[TrialStep], num_blocks: int
) -> Iterator[TrialStep]:
    """The steps that ``theirs`` does not leave to our own kernels entirely."""
    kv_cache = _empty_cache(problem, num_blocks, problem.dtype)
    for rows in steps:
        batch = _batch(rows, _block_table(rows, problem), kv_cache)
        with _theirs():
            plan = theirs.plan(_as_used(batch, rows), 0)
        if not isinstance(plan, PlanOfNext):
            yield rows


def _run_ours(
    ours: AttentionBackend, problem: AttentionProblem, steps: Sequence[TrialStep], num_blocks: int
) -> None:
    """Run our own kernels on the steps, with arbitrary values in the cache."""
    kv_cache = _empty_cache(problem, num_blocks, problem.dtype)
    for rows in steps:
        batch = _batch(rows, _block_table(rows, problem), kv_cache)
        q = _queries(problem, sum(rows.new))
        ours.forward(q, kv_cache, ours.plan(batch, 0))


def _compare(
    theirs: AttentionBackend,
    ours: AttentionBackend,
    problem: AttentionProblem,
    rows: TrialStep,
    num_blocks: int,
) -> list[str]:
    """Where the results of ``theirs`` for one step differ from ours, the reason; else nothing."""
    trial = make_trial(problem, rows, num_blocks)
    expected = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0)).float()
    limit = _ROUNDINGS * torch.finfo(problem.dtype).eps
    with _theirs():
        plan = theirs.plan(_as_used(trial.batch, rows), 0)
        for _ in range(_CALLS):
            found = theirs.forward(trial.q, trial.kv_cache, plan)
            difference = float((found.float() - expected).abs().max())
            if not difference <= limit:  # true for NaN, too
                return [
                    f"its results for {rows.name} differ from our own kernel's by "
                    f"{difference:.2g}, more than {limit:.2g} of rounding"
                ]
    return []


def _as_used(batch: Batch, rows: TrialStep) -> Batch:
    """``batch`` as backends get it, for a captured step without how many rows have one query."""
    if not rows.is_mixed_graph:
        return batch
    most = len(batch.input_ids)
    return replace(batch, num_decode_rows=None, max_query_len=most)


def make_trial(problem: AttentionProblem, rows: TrialStep, least_blocks: int = 0) -> Trial:
    """Tensors for the step ``rows``, as the module describes, with ``least_blocks`` or more."""
    device = torch.device(problem.device)
    random = torch.Generator(device).manual_seed(0)
    dim = problem.head_dim
    # All queries point along it, so that a key along it has about the same score with each.
    direction = torch.randint(0, 2, (dim,), generator=random, device=device).float() * 2 - 1
    key_per_score = direction / (problem.scale * dim)
    q = torch.randn(sum(rows.new), problem.num_heads, dim, generator=random, device=device)
    table = _block_table(rows, problem)
    num_blocks = max(least_blocks, sum(_block_counts(rows, problem)))
    kv_cache = _empty_cache(problem, num_blocks, torch.float32)
    kv_cache[0] = _HIDDEN_SCORE * key_per_score
    kv_cache[1] = _HIDDEN_VALUE
    keys, values = (part.view(-1, problem.num_kv_heads, dim) for part in kv_cache)
    for row, (computed, length) in enumerate(zip(rows.computed, rows.lengths, strict=True)):
        first, last_first = (_first_visible(at, problem) for at in (computed, length - 1))
        positions = torch.arange(first, length)
        slots = table[row, positions // problem.block_size].long() * problem.block_size
        slots = (slots + positions % problem.block_size).to(device)
        noise = torch.randn(
            2, len(slots), problem.num_kv_heads, dim, generator=random, device=device
        )
        keys[slots] = noise[0] / (problem.scale * dim**0.5)
        values[slots] = noise[1].clamp(-2, 2) / 4
        loud = slots[[last_first - first, -1]]
        keys[loud] = _LOUD_SCORE * key_per_score
        values[loud] = _LOUD_VALUE
    queries = _queries(problem, len(q))
    queries[:] = direction + q / 2
    return Trial(
        q=queries,
        kv_cache=(kv_cache := kv_cache.to(problem.dtype)),
        batch=_batch(rows, table, kv_cache),
    )


def _empty_cache(problem: AttentionProblem, num_blocks: int, dtype: torch.dtype) -> Tensor:
    """A cache of the null block and ``num_blocks`` others, not initialised."""
    shape = (2, num_blocks + 1, problem.block_size, problem.num_kv_heads, problem.head_dim)
    return torch.empty(shape, dtype=dtype, device=problem.device)


def _queries(problem: AttentionProblem, count: int) -> Tensor:
    """Queries [count, H, D], a slice of a product with keys and values, as in models."""
    num_heads = problem.num_heads + 2 * problem.num_kv_heads
    shape = (count, num_heads, problem.head_dim)
    product = torch.empty(shape, dtype=problem.dtype, device=problem.device)
    return product[:, : problem.num_heads]


def _first_visible(position: int, problem: AttentionProblem) -> int:
    return 0 if problem.window is None else max(0, position - problem.window + 1)


def _block_counts(rows: TrialStep, problem: AttentionProblem) -> list[int]:
    return [-(-length // problem.block_size) for length in rows.lengths]


def _block_table(rows: TrialStep, problem: AttentionProblem) -> Tensor:
    """[R, B] int32 with the rows' blocks in random order.

    Blocks that the window has passed are given back: their entries are the null block.
    """
    counts = _block_counts(rows, problem)
    table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0)).int() + 1
    for row, blocks in enumerate(order.split(counts)):
        table[row, : len(blocks)] = blocks
        table[row, : _first_visible(rows.computed[row], problem) // problem.block_size] = 0
    return table


def _batch(rows: TrialStep, table: Tensor, kv_cache: Tensor) -> Batch:
    device = kv_cache.device
    query_start = torch.tensor([0, *rows.new]).cumsum(0).int()
    seq_lens = torch.tensor(rows.lengths).int()
    positions = [torch.arange(c, end) for c, end in zip(rows.computed, rows.lengths, strict=True)]
    tokens = torch.zeros(sum(rows.new), dtype=torch.int64, device=device)
    return Batch(
        input_ids=tokens,
        positions=torch.cat(positions).to(device),
        query_start=query_start.to(device),
        seq_lens=seq_lens.to(device),
        query_start_cpu=query_start,
        seq_lens_cpu=seq_lens,
        num_decode_rows=rows.new.count(1),
        max_query_len=max(rows.new),
        max_seq_len=max(rows.lengths),
        groups=(GroupBatch(block_table=table.to(device), slot_mapping=tokens),),
        kv_caches=(kv_cache,),
        layer_groups=(0,),
    )
