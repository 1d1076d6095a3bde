from benchmarks.gpu_parts.rounding import compare_rounding, first_difference

from quire.outputs import CompletionOutput, Logprob


def completion(tokens: list[int], margins: list[float]) -> CompletionOutput:
    logprobs = [
        {token: Logprob(logprob=-0.5, rank=1), 999: Logprob(logprob=-0.5 - margin, rank=2)}
        for token, margin in zip(tokens, margins, strict=True)
    ]
    return CompletionOutput(
        index=0, text="", token_ids=tokens, cumulative_logprob=None, logprobs=logprobs
    )


def test_only_the_first_difference_of_a_request_counts() -> None:
    reference = [completion([1, 2, 3, 4], [1.0, 0.01, 2.0, 2.0]), completion([5, 6], [0.5, 3.0])]
    found = compare_rounding(reference, [[1, 9, 9, 9], [5, 6]])
    assert (found.num_differing, found.num_requests, found.num_compared) == (1, 2, 4)
    assert [round(one, 6) for one in found.margins] == [0.01]
    assert found.num_unexplained == 0
    assert not found.is_rounding  # one of four tokens is too many
    assert "1 of 4 tokens" in found.in_words()


def test_a_difference_where_one_token_was_clearly_better_is_not_rounding() -> None:
    found = compare_rounding([completion([1, 2], [2.0, 0.5])], [[7, 2]])
    assert found.num_unexplained == 1
    assert not found.is_rounding
    assert round(found.margins[0], 6) == 2.0


def test_equal_answers() -> None:
    found = compare_rounding([completion([1, 2], [2.0, 0.5])], [[1, 2]])
    assert (found.num_differing, found.margins) == (0, [])
    assert found.is_rounding


def test_a_text_that_ends_early_differs_there() -> None:
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [3, 2]) == 0
