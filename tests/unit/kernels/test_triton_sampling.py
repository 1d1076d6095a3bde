from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.kernels.reference import sampling as reference
from quire.kernels.reference import sampling_table as columns
from quire.kernels.reference.sampling_table import SamplingTable, pack_line
from quire.kernels.triton import sampling_search
from quire.kernels.triton.argmax import Argmax
from quire.kernels.triton.sampling import Chooser, Sizes
from quire.kernels.triton.sampling_early import forbid_early
from quire.kernels.triton.sampling_history import History
from quire.kernels.triton.sampling_logprobs import BestLogprobs
from tests.unit.kernels.twins import DEVICE, DTYPES
from tests.unit.sampling.harness import assert_distributed, filtered

WHOLE = Sizes(block=128, sample=64, capacity=512)  # all of a row is collected
SMALL = Sizes(block=128, sample=64, capacity=64)
FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.0, "top_k": 3, "top_p": 0.5},
    {"temperature": 1e-5},
    {"temperature": 0.3, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.99},
    {"top_p": 1e-6},
    {"top_p": 0.5},
    {"min_p": 1.0},
    {"min_p": 0.02},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 300},
    {"top_k": 10_000},
    {"top_k": 20, "top_p": 0.7},
    {"top_k": 25, "top_p": 0.9, "min_p": 0.01},
    {"top_k": 40, "min_p": 0.05},
    {"top_p": 0.8, "min_p": 0.05},
]


def table_of(rows: list[dict[str, Any]]) -> SamplingTable:
    """A line for each, with seeds of their own, and nobody's."""
    lines = SamplingTable.of_nobody(len(rows) + 1, torch.device("cpu")).integers.numpy()
    for index, row in enumerate(rows):
        reals = (
            row.get("temperature", 1.0), row.get("top_p", 1.0), row.get("min_p", 0.0),
            row.get("repetition", 1.0), row.get("frequency", 0.0), row.get("presence", 0.0),
        )  # fmt: skip
        seed = row.get("seed", 77 * index - 5)
        integers = (
            seed, row.get("top_k", 0), row.get("num_prompt", 0), row.get("logprobs", 0),
            row.get("min_tokens", 0),
        )  # fmt: skip
        pack_line(lines[index], reals, integers)
    integers = torch.from_numpy(lines).to(DEVICE)
    return SamplingTable(integers=integers, reals=integers.view(torch.float64))


def random_logits(num_rows: int, vocab_size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, vocab_size, generator=generator) * 2).to(DEVICE)


def places(num_rows: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Rows and lengths."""
    rows = torch.arange(num_rows, device=DEVICE)
    return rows, rows * 3 + first


@pytest.mark.parametrize("dtype", DTYPES)
def test_early_tokens_are_forbidden_as_by_the_twin(dtype: torch.dtype) -> None:
    table = table_of([{"num_prompt": n, "min_tokens": m} for n, m in [(2, 4), (2, 3), (1, 0)]])
    early_ids = torch.tensor([[3, -1], [69, 5], [7, 8], [-1, -1]], dtype=torch.int32, device=DEVICE)
    rows = torch.tensor([3, 1, 0, 2, 1, 0], device=DEVICE)
    lengths = torch.tensor([9, 4, 5, 9, 5, 6], device=DEVICE)
    logits = random_logits(6, 73).to(dtype)[:, :70]  # lines apart
    before, wanted = logits.clone(), logits.clone()
    reference.forbid_early(wanted, rows, lengths, table, early_ids)
    forbid_early(logits, rows, lengths, table, early_ids)
    assert torch.equal(logits, wanted)
    changed = (logits != before).nonzero().tolist()
    assert changed == [[1, 5], [1, 69], [2, 3]]
    assert torch.isneginf(logits[logits != before]).all()


def assert_chosen(logits: Tensor, table: SamplingTable, sizes: Sizes) -> None:
    rows, lengths = places(len(logits))
    chooser = Chooser(len(logits), logits.shape[1], table, sizes)
    wanted = reference.choose(logits, rows, lengths, table)
    assert chooser(logits, rows, lengths).tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("vocab_size", "sizes"), [(1, SMALL), (33, SMALL), (333, WHOLE), (333, SMALL)]
)
def test_tokens_are_the_twins(dtype: torch.dtype, vocab_size: int, sizes: Sizes) -> None:
    logits = random_logits(len(FILTERS), vocab_size).to(dtype)
    assert_chosen(logits, table_of(FILTERS), sizes)


@pytest.mark.parametrize("sizes", [WHOLE, SMALL], ids=["whole", "small"])
@pytest.mark.parametrize(
    "shape", ["ties", "one allowed", "none allowed", "all equal", "a peak", "sorted", "two levels"]
)
def test_odd_rows_are_the_twins(shape: str, sizes: Sizes) -> None:
    size = 300
    line = random_logits(1, size, seed=3)[0]
    if shape == "ties":
        line = line.round()
    elif "allowed" in shape:
        line.fill_(-torch.inf)
        line[211] = -9.0 if shape == "one allowed" else -torch.inf
    elif shape == "all equal":
        line.fill_(2.5)
    elif shape == "a peak":
        line[[17, 233, 234]] = torch.tensor([30.0, 29.5, 29.0], device=DEVICE)
    elif shape == "sorted":
        line = line.sort().values
    else:  # few that the sample may miss weigh as much as all the others
        line.fill_(0.0)
        line[[100, 222, 298]] = 5.0
    settings = [FILTERS[index] for index in (0, 1, 5, 7, 9, 11, 14)]
    assert_chosen(line.repeat(len(settings), 1), table_of(settings), sizes)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="calls in compiled kernels cannot be counted")
@pytest.mark.parametrize(
    "settings",
    [{"top_k": 40}, {"top_k": 40, "min_p": 0.05}, {"top_p": 0.9}, {"top_k": 40, "top_p": 0.9}],
    ids=str,
)
@pytest.mark.parametrize("spread", [1.0, 3e-5], ids=["usual", "flat, as of dummy weights"])
def test_what_the_sample_tells_needs_no_search_of_the_row(
    settings: dict[str, Any], spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = itertools.count()
    real = sampling_search._kept_of_chunks

    def counted(*args: Any, **kwargs: Any) -> Any:
        next(count)
        return real(*args, **kwargs)

    monkeypatch.setattr(sampling_search, "_kept_of_chunks", counted)
    logits = random_logits(4, 20_000)
    logits[:, ::700] += torch.linspace(4, 12, 29, device=DEVICE)  # some stand out
    logits *= spread
    rows, lengths = places(len(logits))
    table = table_of([settings] * len(logits))
    found = Chooser(len(logits), logits.shape[1], table, Sizes())(logits, rows, lengths)
    assert next(count) == 0
    tiny = Sizes(sample=16, capacity=16)
    if spread == 1.0:  # sums of flat rows differ from the twin's by whole tokens when rounded
        assert found.tolist() == reference.choose(logits, rows, lengths, table).tolist()
    searched = Chooser(len(logits), logits.shape[1], table, tiny)(logits, rows, lengths)
    assert torch.equal(found, searched)


def test_a_row_does_not_depend_on_neighbours_place_or_dtype() -> None:
    settings = FILTERS[3:14:2]
    table, num_rows = table_of(settings), len(settings)
    logits = random_logits(num_rows, 300).half()
    rows, lengths = places(num_rows)
    chooser = Chooser(num_rows, 300, table, SMALL)
    together = chooser(logits, rows, lengths)
    order = torch.tensor([3, 0, 5, 1, 4], device=DEVICE)
    assert torch.equal(chooser(logits[order], rows[order], lengths[order]), together[order])
    assert torch.equal(chooser(logits.float(), rows, lengths), together)


def test_a_line_may_be_part_of_a_wider_one() -> None:
    wide = random_logits(4, 250)
    table = table_of([{}, {"top_k": 3}, {"temperature": 0.0}, {"top_p": 0.4}])
    rows, lengths = places(4)
    chooser = Chooser(4, 200, table, SMALL)
    found = chooser(wide[:, :200], rows, lengths)
    assert torch.equal(found, chooser(wide[:, :200].contiguous(), rows, lengths))


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.6, "top_k": 9}, {"top_p": 0.8}, {"min_p": 0.1, "top_k": 12}],
    ids=str,
)
def test_draws_have_the_exact_distribution(settings: dict[str, Any]) -> None:
    """The twin's, of which the kernels' are a part."""
    num_rows = 10_000
    line = random_logits(1, 30, seed=5)[0] * 0.5
    table = table_of([{**settings, "seed": seed} for seed in range(num_rows)])
    rows = torch.arange(num_rows, device=DEVICE)
    drawn = reference.choose(line.repeat(num_rows, 1), rows, rows % 7, table)
    filters = {name: value for name, value in settings.items() if name != "temperature"}
    shares = (line.double().cpu() / settings.get("temperature", 1.0)).softmax(0)
    assert_distributed(drawn.cpu(), filtered(shares, **filters))
    some = slice(0, 30)
    chooser = Chooser(30, 30, table, Sizes(block=32, sample=32, capacity=32))
    found = chooser(line.repeat(30, 1), rows[some], rows[some] % 7)
    assert torch.equal(found, drawn[some])


PENALTIES: list[dict[str, Any]] = [
    {"repetition": 1.5, "num_prompt": 40},
    {"frequency": 0.7, "presence": -0.4, "num_prompt": 3},
    {"num_prompt": 10},
    {"repetition": 0.6, "frequency": -0.2, "presence": 1.1, "num_prompt": 2000, "top_k": 30},
    {"presence": 2.0, "temperature": 0.0, "num_prompt": 0},
]


def histories(vocab_size: int) -> tuple[Tensor, Tensor]:
    """Token ids, garbage behind a row's own, and the rows' lengths."""
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(0, vocab_size, (6, 9100), generator=generator, dtype=torch.int32)
    return token_ids.to(DEVICE), torch.tensor([60, 50, 20, 9000, 5], device=DEVICE)


@pytest.mark.parametrize("vocab_size", [1, 333])
def test_penalties_are_the_twins_and_leave_no_counts(vocab_size: int) -> None:
    table, (token_ids, lengths) = table_of(PENALTIES), histories(vocab_size)
    logits = random_logits(5, vocab_size)
    rows = torch.tensor([3, 0, 4, 1, 2], device=DEVICE)
    lengths = lengths[rows]
    wanted = reference.penalise(logits, rows, lengths, token_ids, table)
    history = History(2, vocab_size, token_ids, table)  # three passes
    for _ in range(2):
        found = logits.clone()
        history.penalise(found, rows, lengths)
        torch.testing.assert_close(found, wanted)
    with history.counts(rows[:2], lengths[:2]) as counts:
        assert counts.seen.any()
    assert not counts.seen.any() and not counts.counts.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_after_penalties_are_those_of_penalised_logits(dtype: torch.dtype) -> None:
    table, (token_ids, lengths) = table_of(PENALTIES), histories(300)
    logits = random_logits(5, 300).to(dtype)
    rows = torch.arange(5, device=DEVICE)
    history, chooser = History(5, 300, token_ids, table), Chooser(5, 300, table, SMALL)
    penalised = logits.float().clone()
    history.penalise(penalised, rows, lengths)
    with history.counts(rows, lengths) as counts:
        found = chooser(logits, rows, lengths, counts)
    assert torch.equal(found, chooser(penalised, rows, lengths))
    wanted = reference.penalise(logits, rows, lengths, token_ids, table)
    assert torch.equal(found, reference.choose(wanted, rows, lengths, table))


def assert_logprobs(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    assert found[0].tolist() == wanted[0].tolist()
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-5)
    assert found[2].tolist() == wanted[2].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [1, 33, 200])
@pytest.mark.parametrize("rounded", [False, True])
def test_logprobs_are_the_twins(dtype: torch.dtype, vocab_size: int, rounded: bool) -> None:
    logits = random_logits(4, vocab_size)
    logits = (logits.round() if rounded else logits).to(dtype)
    logits[1, 2:] = -torch.inf  # fewer than are asked for are possible
    targets = torch.tensor([0, 0, vocab_size - 1, vocab_size // 2], device=DEVICE)
    best = BestLogprobs(3, vocab_size, table_of([{}] * 4), 20, block=64, group=4)
    wanted = reference.best_logprobs(logits, targets, 20)
    for _ in range(2):
        assert_logprobs(best(logits, targets), wanted)


def test_rows_get_the_logprobs_that_they_want() -> None:
    vocab_size = 120
    kinds = [
        columns.RAW_LOGPROBS, columns.PROCESSED_LOGPROBS, columns.NO_LOGPROBS,
        columns.PROCESSED_LOGPROBS, columns.PROCESSED_LOGPROBS,
    ]  # fmt: skip
    lines = [
        {"temperature": 0.7, **penalties, "logprobs": kind}
        for penalties, kind in zip(PENALTIES, kinds, strict=True)
    ]
    table, (token_ids, lengths) = table_of(lines), histories(vocab_size)
    logits, rows = random_logits(5, vocab_size), torch.arange(5, device=DEVICE)
    targets = rows * 20
    with History(5, vocab_size, token_ids, table).counts(rows, lengths) as counts:
        found = BestLogprobs(5, vocab_size, table, 20, block=64, group=4)(
            logits, targets, rows, counts
        )
    penalised = reference.penalise(logits, rows, lengths, token_ids, table)
    shown = reference.to_processed(logits, penalised, rows, table)
    wanted = reference.best_logprobs(shown, targets, 20)
    asked = torch.tensor([0, 1, 3, 4], device=DEVICE)
    assert_logprobs(tuple(one[asked] for one in found), tuple(one[asked] for one in wanted))


@pytest.mark.parametrize("broken", [1, 199, 200])
def test_a_row_without_numbers_gets_tokens_that_there_are(broken: int) -> None:
    """A token past the vocabulary would be read as an index by the next step, and end the engine
    for all requests."""
    vocab_size = 200
    logits = random_logits(2, vocab_size)
    logits[:, :broken] = torch.nan
    first = 0 if broken == vocab_size else broken
    table, rows = table_of([{}, {"top_k": 3}]), torch.arange(2, device=DEVICE)
    greedy = Argmax(2, vocab_size, DEVICE)(logits)
    drawn = Chooser(2, vocab_size, table, WHOLE)(logits, rows, rows)
    best = BestLogprobs(2, vocab_size, table, 20, block=64, group=4)(logits, greedy).token_ids
    for token_ids in (greedy, drawn):
        assert ((token_ids >= first) & (token_ids < vocab_size)).all()
    assert ((best >= 0) & (best < vocab_size)).all()
