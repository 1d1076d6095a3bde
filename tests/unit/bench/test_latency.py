"""`quire bench latency` with the flags of vLLM's, on the bundled model's shape."""

from __future__ import annotations

import pytest

from quire.bench import latency
from quire.cli import main
from quire.cli.parser import Parser
from quire.llm import LLM
from quire.outputs import RequestOutput

DUMMY = ("--load-format", "dummy", "--dtype", "float32", "--max-num-seqs", "8")


def test_beams_are_searched_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RequestOutput] = []
    generate = LLM.generate

    def watched(llm: LLM, *given: object, **named: object) -> list[RequestOutput]:
        outputs = generate(llm, *given, **named)  # type: ignore[arg-type]
        seen.extend(outputs)
        return outputs

    monkeypatch.setattr(LLM, "generate", watched)
    words = ["--n", "3", "--batch-size", "2", "--input-len", "4", "--output-len", "5"]
    iterations = ["--num-iters", "1", "--num-iters-warmup", "0"]
    assert main(["bench", "latency", *DUMMY, "--use-beam-search", *words, *iterations]) == 0
    assert [len(output.outputs) for output in seen] == [3, 3]
    for output in seen:
        assert [len(beam.token_ids) for beam in output.outputs] == [5] * 3
        likelihoods = [beam.cumulative_logprob for beam in output.outputs]
        assert None not in likelihoods and likelihoods == sorted(likelihoods, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--profile", "profile=True: there is no profiler; leave it out"),
        ("--seed -1", "--seed -1 makes no prompts; give at least 0"),
        ("--workload nano --use-beam-search", "and how long; leave out --use-beam-search"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_model_loads(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert main(["bench", "latency", "--model", "/nowhere", *words.split()]) == 1
    assert message in capsys.readouterr().err


def test_every_default_is_of_a_flag() -> None:
    parser = Parser(prog="x", description=None)
    latency.add_arguments(parser)
    given = vars(parser.parse([]))
    assert {given[name] for name in latency.DEFAULTS} == {None}
