"""Older families in the layouts of their hubs, against recorded log-probabilities.

transformers has no class for most of them. Each folder of goldens/ is a checkpoint as it would be
published, and what another engine said of it; goldens/README.md tells how they came about.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quire import LLM, SamplingParams
from quire.models.decoder import Decoder
from quire.models.loading import build_model
from quire.outputs import Logprob, RequestOutput
from tests.fakes.batches import FakeRows
from tests.fakes.engines import BLOCK_SIZE, engine_args

_TOLERANCE = 5e-4
_FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("goldens/*/golden.json.gz"))


@dataclass(frozen=True, slots=True)
class Golden:
    """What is known of a checkpoint's answers; lists have an entry per prompt."""

    folder: Path
    prompts: list[list[int]]
    greedy_token_ids: list[list[int]]
    greedy_logprobs: list[list[float]]
    first_logprobs: list[list[float]]  # of the whole vocabulary, at the first generated token
    prompt_logprobs: list[dict[str, list[Any]]]  # chosen, top_ids, top_logprobs; null at the first

    @classmethod
    def read(cls, folder: Path) -> Golden:
        with gzip.open(folder / "golden.json.gz", "rt", encoding="utf-8") as file:
            return cls(folder=folder, **json.load(file))

    @property
    def num_generated(self) -> int:
        return len(self.greedy_token_ids[0])


@pytest.fixture(scope="module", params=_FOLDERS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(request.param)


@pytest.fixture(scope="module")
def decoder(golden: Golden) -> Decoder:
    loaded = build_model(engine_args(golden.folder).create_engine_config())
    assert loaded.report.unused == ()
    return loaded.model


@pytest.fixture(scope="module")
def llm(golden: Golden) -> Iterator[LLM]:
    llm = LLM(**vars(engine_args(golden.folder)))
    yield llm
    llm.close()


def test_the_older_families_are_all_here() -> None:
    assert len(_FOLDERS) == 21


def test_prompt_and_answer_in_one_step(golden: Golden, decoder: Decoder) -> None:
    lengths = [len(prompt) + golden.num_generated - 1 for prompt in golden.prompts]
    _check_steps(golden, decoder, [dict(enumerate(lengths))])


def test_prompts_in_chunks_then_the_answers(golden: Golden, decoder: Decoder) -> None:
    chunks = [{2: 5, 3: 37}, {1: 7, 2: 11, 3: 1}, {0: 1, 2: 17, 3: 62}]
    _check_steps(golden, decoder, chunks + [dict.fromkeys(range(4), 1)] * 15)


def test_one_token_at_a_time(golden: Golden, decoder: Decoder) -> None:
    lengths = [len(prompt) + golden.num_generated - 1 for prompt in golden.prompts[:3]]
    steps = [
        {row: 1 for row, length in enumerate(lengths) if number < length}
        for number in range(max(lengths))
    ]
    _check_steps(golden, decoder, steps)


def test_greedy_answers_of_the_engine(golden: Golden, llm: LLM) -> None:
    outputs = _generate(golden, llm, logprobs=-1, prompt_logprobs=20)
    for number, output in enumerate(outputs):
        _check_output(golden, number, output)
        assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
        assert len(output.prompt_logprobs) == len(golden.prompts[number])
        known = golden.prompt_logprobs[number]
        for position, found in enumerate(output.prompt_logprobs[1:], start=1):
            assert found is not None
            expected = dict(
                zip(known["top_ids"][position], known["top_logprobs"][position], strict=True)
            )
            expected[golden.prompts[number][position]] = known["chosen"][position]
            _check_logprobs(found, expected)


def test_greedy_answers_after_a_prefix_hit(golden: Golden, llm: LLM) -> None:
    llm.reset_prefix_cache()
    _generate(golden, llm, logprobs=-1)
    for number, output in enumerate(_generate(golden, llm, logprobs=-1)):
        _check_output(golden, number, output)
        num_full = (len(golden.prompts[number]) - 1) // BLOCK_SIZE
        assert output.num_cached_tokens == num_full * BLOCK_SIZE


@pytest.mark.parametrize(
    ("name", "change"),
    [
        # It leaves lengths as they are that the model was trained for.
        ("internlm2", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("chatglm", {"architectures": ["ChatGLMForConditionalGeneration"]}),
    ],
)
def test_changed_config_of_the_same_model(name: str, change: dict[str, Any]) -> None:
    golden = Golden.read(Path(__file__).parent / "goldens" / name)
    args = engine_args(golden.folder, hf_overrides=change)
    lengths = [len(prompt) + golden.num_generated - 1 for prompt in golden.prompts]
    decoder = build_model(args.create_engine_config()).model
    _check_steps(golden, decoder, [dict(enumerate(lengths))])


def _generate(golden: Golden, llm: LLM, **wanted: Any) -> list[RequestOutput]:
    params = SamplingParams(
        temperature=0, max_tokens=golden.num_generated, ignore_eos=True, **wanted
    )
    return llm.generate(prompt_token_ids=golden.prompts, sampling_params=params, use_tqdm=False)


def _check_output(golden: Golden, number: int, output: RequestOutput) -> None:
    completion = output.outputs[0]
    assert list(completion.token_ids) == golden.greedy_token_ids[number]
    assert completion.logprobs is not None
    _check_logprobs(completion.logprobs[0], dict(enumerate(golden.first_logprobs[number])))
    for found, token, logprob in zip(
        completion.logprobs,
        golden.greedy_token_ids[number],
        golden.greedy_logprobs[number],
        strict=True,
    ):
        assert found[token].rank == 1
        assert found[token].logprob == pytest.approx(logprob, abs=_TOLERANCE)


def _check_logprobs(found: dict[int, Logprob], expected: dict[int, float]) -> None:
    assert found.keys() == expected.keys()
    for token, logprob in expected.items():
        assert found[token].logprob == pytest.approx(logprob, abs=_TOLERANCE)


def _check_steps(golden: Golden, decoder: Decoder, steps: list[dict[int, int]]) -> None:
    """Run the steps (row -> tokens computed) over prompts and answers; compare what is known."""
    texts = [
        prompt + answer[:-1]
        for prompt, answer in zip(golden.prompts, golden.greedy_token_ids, strict=True)
    ]
    rows = FakeRows(decoder.kv_layout, texts)
    for step in steps:
        batch, places = rows.batch(step)
        with torch.inference_mode():
            logits = decoder.logits(decoder.forward(batch))
        assert logits.dtype == torch.float32
        for line, (row, position) in zip(logits.log_softmax(dim=-1), places, strict=True):
            _check_line(golden, row, position, line)
    done = len(steps[-1])
    assert rows.num_computed[:done] == [len(text) for text in texts[:done]]


def _check_line(golden: Golden, row: int, position: int, line: Tensor) -> None:
    """``line``: log-probabilities [V] of the token after ``position``."""
    prompt, known = golden.prompts[row], golden.prompt_logprobs[row]
    if position + 1 < len(prompt):
        ids = [*known["top_ids"][position + 1], prompt[position + 1]]
        expected = [*known["top_logprobs"][position + 1], known["chosen"][position + 1]]
    else:
        place = position + 1 - len(prompt)
        ids = [golden.greedy_token_ids[row][place]]
        expected = [golden.greedy_logprobs[row][place]]
        assert int(line.argmax()) == ids[0]
        if place == 0:
            ids += range(len(line))
            expected += golden.first_logprobs[row]
    difference = float((line[ids] - torch.tensor(expected)).abs().max())
    assert difference < _TOLERANCE, f"row {row}, position {position}: {difference:.2e}"
