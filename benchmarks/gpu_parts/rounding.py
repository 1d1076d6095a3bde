"""Whether rounding explains that two runs of one model chose different tokens: compares the margin
between the two best log-probabilities where tokens differ with the usual margin.

After its first difference a request's contexts differ, so only the first one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from quire.outputs import CompletionOutput

# A bf16 logit between 2 and 4, as the best ones of the tiny model are, is rounded by up to 1/128.
# Each of two logits is off by that much, and by more from the layers before: on an H200, margins
# of differing tokens were up to 0.08, and about 2 between two random tokens.
BF16_TIE = 0.1
MOST_DIFFERING = 0.05  # of compared tokens; 2 to 3 % have been seen


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounding:
    """How a run's tokens differ from a reference that has log-probabilities."""

    num_requests: int
    num_differing: int  # requests
    num_compared: int  # tokens, up to the first difference of each request
    margins: list[float]  # best less second best, where a token differs; the largest first
    usual_margin: float  # median over all positions of the reference
    share_of_ties: float  # positions whose margin is below `BF16_TIE`
    num_unexplained: int  # differences at a margin of `BF16_TIE` or more

    @property
    def is_rounding(self) -> bool:
        """Whether rounding explains all differences, and they are not too many."""
        return not self.num_unexplained and (
            self.num_differing <= MOST_DIFFERING * self.num_compared
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "margins": [round(one, 4) for one in self.margins[:16]]}

    def in_words(self) -> str:
        text = (
            f"{self.num_differing} of {self.num_requests} requests differ somewhere, "
            f"{self.num_differing} of {self.num_compared} tokens"
        )
        if self.margins:
            text += (
                f"; there the two best are {median(self.margins):.3f} apart (median, at most "
                f"{self.margins[0]:.3f}), elsewhere {self.usual_margin:.3f}; "
                f"{self.share_of_ties:.1%} of all positions are closer than {BF16_TIE}; "
                f"{self.num_unexplained} differences not explained by rounding"
            )
        return text


def compare_rounding(
    reference: Sequence[CompletionOutput], tokens: Sequence[Sequence[int]]
) -> Rounding:
    """Compare ``tokens`` with ``reference``, which has two log-probabilities per position."""
    at_differences: list[float] = []
    num_compared = 0
    for one, other in zip(reference, tokens, strict=True):
        place = first_difference(one.token_ids, other)
        num_compared += len(other) if place is None else place + 1
        if place is not None:
            at_differences.append(margin_at(one, place))
    everywhere = [margin_at(one, i) for one in reference for i in range(len(one.token_ids))]
    return Rounding(
        num_requests=len(reference),
        num_differing=len(at_differences),
        num_compared=num_compared,
        margins=sorted(at_differences, reverse=True),
        usual_margin=median(everywhere),
        share_of_ties=sum(one < BF16_TIE for one in everywhere) / len(everywhere),
        num_unexplained=sum(one >= BF16_TIE for one in at_differences),
    )


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    pairs = zip(one, other, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    return min(len(one), len(other)) if place is None and len(one) != len(other) else place


def margin_at(completion: CompletionOutput, place: int) -> float:
    """Difference of the two best log-probabilities at ``place``; infinite after the end."""
    logprobs = completion.logprobs
    assert logprobs is not None
    if place >= len(logprobs):
        return float("inf")
    values = sorted((one.logprob for one in logprobs[place].values()), reverse=True)
    return values[0] - values[1]
