import numpy as np
import pytest

from quire.bench.workload import FIRST_ID, random_prompts, vary


def ids(**arguments: int | float) -> list[list[int]]:
    prompts = random_prompts(4, 10, **{"vocab_size": 100, "seed": 1, **arguments})  # type: ignore[arg-type]
    return [prompt["prompt_token_ids"] for prompt in prompts]


def test_a_seed_gives_the_same_prompts() -> None:
    assert ids() == ids()
    assert ids() != ids(seed=2)
    assert len({tuple(prompt) for prompt in ids()}) == 4


def test_ids_are_ordinary_tokens() -> None:
    assert all(FIRST_ID <= token < 100 for prompt in ids() for token in prompt)
    assert ids(vocab_size=2)[0] == [1] * 10


def test_a_prefix_is_shared() -> None:
    prompts = ids(prefix_len=6)
    assert {len(prompt) for prompt in prompts} == {16}
    assert len({tuple(prompt[:6]) for prompt in prompts}) == 1


def test_lengths_vary_within_the_ratio() -> None:
    lengths = vary(np.random.default_rng(0), 10, 0.5, 200)
    assert (min(lengths), max(lengths)) == (5, 15)
    assert vary(np.random.default_rng(0), 10, 0.0, 3) == [10, 10, 10]


@pytest.mark.parametrize("ratio", [1.0, -0.1])
def test_a_senseless_ratio(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"at least 0 and below 1, got {ratio}"):
        random_prompts(1, 5, vocab_size=10, seed=0, range_ratio=ratio)
