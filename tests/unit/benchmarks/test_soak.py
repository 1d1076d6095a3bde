from pathlib import Path

import pytest
from benchmarks.gpu_parts import soak
from benchmarks.gpu_parts.soak import Soak, in_words


@pytest.fixture
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "REQUESTS_PER_ROUND", 12)


@pytest.mark.usefixtures("short_rounds")
def test_a_round_compares_every_answer_with_a_rerun(tmp_path: Path) -> None:
    one = Soak("grouped-heads", tmp_path, {"device": "cpu"})
    result = one.run(seconds=0)
    one.close()
    assert result["passed"] and result["problems"] == []
    assert result["requests"] == 12 and result["completions"] > 6
    assert result["blocks_lost"] == 0 and result["preemptions"] > 0
    assert "1 rounds, 12 requests" in in_words(result)


@pytest.mark.usefixtures("short_rounds")
def test_a_wrong_token_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Soak("grouped-heads", tmp_path, {"device": "cpu"})
    take = soak.Storm._take

    def falsify(storm: soak.Storm, output: soak.RequestOutput) -> None:
        for completion in output.outputs:
            completion.token_ids = [7, *list(completion.token_ids)[1:]]
        take(storm, output)

    monkeypatch.setattr(soak.Storm, "_take", falsify)
    result = one.run(seconds=0)
    one.close()
    assert not result["passed"] and result["num_problems"] > 0


@pytest.mark.usefixtures("short_rounds")
def test_a_round_that_breaks_is_reported_and_the_next_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Soak("grouped-heads", tmp_path, {"device": "cpu"})

    def broken(storm: soak.Storm, asks: object) -> None:
        raise AssertionError("a block is lost")

    with monkeypatch.context() as patch:
        patch.setattr(soak.Storm, "run", broken)
        one.run(seconds=0)
    result = one.run(seconds=0)
    one.close()
    assert (result["rounds"], result["num_problems"], result["passed"]) == (2, 1, False)
    assert result["completions"] > 0
