"""Requests whose tokens differ between two runs of a tiny float32 model, each with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from quire import SamplingParams
from quire.row_sampling import to_row_sampling

from .rounding import first_difference
from .ties import noise_that_exchanges


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One completion of a request that both runs were given."""

    prompt: list[int]
    params: SamplingParams
    index: int = 0  # among the request's completions


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The first differing token of one completion, in words."""

    text: str
    is_explained: bool


def differences(
    how: str,
    found: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    requests: Sequence[Request],
    folder: Path,
    device: str,
) -> list[Difference]:
    """Explain where ``found`` differs from ``wanted``, two runs' tokens of ``requests``; ``how``
    names the run in texts, ``folder`` has the model."""
    return [
        _explained(f"{how}, completion {number}", list(mine), list(theirs), request, folder, device)
        for number, (mine, theirs, request) in enumerate(zip(found, wanted, requests, strict=True))
        if list(mine) != list(theirs)
    ]


@torch.inference_mode()
def _explained(
    what: str, mine: list[int], theirs: list[int], request: Request, folder: Path, device: str
) -> Difference:
    from .tiny_models import load_reference

    place = first_difference(mine, theirs)
    assert place is not None
    if place >= min(len(mine), len(theirs)):
        return Difference(text=f"{what}: one is shorter", is_explained=False)
    known, tokens = mine[:place], (mine[place], theirs[place])
    ids = torch.tensor([[*request.prompt, *known]], device=device)
    logits = load_reference(folder, device)(ids).logits[0, -1].float().cpu()
    sampling = to_row_sampling(
        request.params,
        eos_token_ids=(),
        vocab_size=len(logits),
        max_logprobs=-1,
        seed=0,
    )
    sampling = replace(sampling, seed=sampling.seed + request.index)
    noise = noise_that_exchanges(logits, sampling, request.prompt, known, tokens)
    logprobs = logits.log_softmax(0)[list(tokens)].tolist()
    return Difference(
        text=(
            f"{what}, token {place}: {tokens[0]} and not {tokens[1]}, log-probabilities "
            f"{logprobs[0]:.6f} and {logprobs[1]:.6f}; "
            + ("not explained by rounding" if noise is None else f"noise of {noise:g} exchanges")
        ),
        is_explained=noise is not None,
    )
