import hashlib
import json

import pytest

from quire.bench.standard_workloads import FIRST_ID, LAST_ID, Workload, standard_workload
from quire.cli import main

# sha256 of [prompts, output lengths] as other engines ran them when their figures were measured.
PUBLISHED = {
    "nano": "d462db31423b08c6",
    "single": "da5c9bde3a7ac827",
    "decode8": "14159fc2ac7047c3",
    "decode256": "039ffd65e56fad1b",
    "prefix": "e055a6a56ed944a3",
    "prefill": "2000e4ad89af4df8",
    "long": "91d41d0116e297d9",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_token_ids_are_those_of_the_published_figures(name: str) -> None:
    workload = standard_workload(name, vocab_size=151_936)
    content = json.dumps([workload.prompts, workload.output_lens]).encode()
    assert hashlib.sha256(content).hexdigest()[:16] == PUBLISHED[name]


def test_prompts_of_prefix_share_what_they_say() -> None:
    workload = standard_workload("prefix")
    assert workload.shared_len == 2048
    assert len({tuple(prompt[:2048]) for prompt in workload.prompts}) == 1
    assert len({tuple(prompt[2048:]) for prompt in workload.prompts}) == 256
    assert workload.num_prompt_tokens == 256 * 2112
    assert workload.num_output_tokens == 256 * 64


def test_a_scale_shortens_lengths_and_keeps_the_requests() -> None:
    workload = standard_workload("long", scale=0.01)
    assert [len(prompt) for prompt in workload.prompts] == [164] * 16
    assert workload.output_lens == [1] * 16
    full, small = (standard_workload("nano", scale=scale) for scale in (1.0, 0.1))
    assert len(small.prompts) == len(full.prompts)
    assert max(map(len, small.prompts)) <= 102


@pytest.mark.parametrize("vocab_size", [2, 3, 97, 4096])
def test_ids_fit_a_small_vocabulary(vocab_size: int) -> None:
    ids = {token for prompt in standard_workload("decode8", vocab_size=vocab_size).prompts
           for token in prompt}  # fmt: skip
    assert max(ids) < vocab_size
    assert len(ids) > 1 or vocab_size == 2
    assert min(standard_workload("single").prompts[0]) >= FIRST_ID
    assert max(standard_workload("nano").prompts[0]) <= LAST_ID


@pytest.mark.parametrize("name", ["decode", "decode0", "decode-1", "decodes", "mix", ""])
def test_an_unknown_name_lists_those_that_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"there are nano, single, prefix, prefill, long, and dec"):
        standard_workload(name)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5])
def test_a_senseless_scale(scale: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        standard_workload("single", scale=scale)


def test_a_workload_that_would_be_cut_is_refused_with_a_scale_that_fits() -> None:
    workload = Workload(name="w", prompts=[[1] * 100, [1] * 30], output_lens=[20, 60])
    workload.check_fits(120)
    with pytest.raises(ValueError, match=r"100 tokens and 20 of output, .* 119 .*--scale 0\.94"):
        workload.check_fits(119)
    standard_workload("long", scale=0.12).check_fits(2048)


TINY = ["--load-format", "dummy", "--max-model-len", "256", "--num-iters", "1"]


def test_throughput_runs_a_standard_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "throughput", "--workload", "decode4", "--scale", "0.1", *TINY]) == 0
    assert "4 requests, 24 prompt tokens, 104 output tokens" in capsys.readouterr().out


def test_latency_runs_a_standard_workload(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--workload", "single", "--scale", "0.1", "--num-iters-warmup", "0"]
    assert main(["bench", "latency", *words, *TINY]) == 0
    assert "Avg latency" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--workload", "decode4"], "raise --max-model-len, or shorten everything with --scale"),
        (["--workload", "decode4", "--input-len", "3"], "leave out --input-len"),
        (["--scale", "0.5"], "name one with --workload"),
        (["--workload", "nono"], "there is no workload 'nono'"),
    ],
)
@pytest.mark.parametrize("kind", ["throughput", "latency"])
def test_wrong_workloads(
    kind: str, words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", kind, *words, *TINY]) == 1
    assert error in capsys.readouterr().err
