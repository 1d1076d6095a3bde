"""Logits processors that users bring as Python functions, or name (`named_processors.py`).

A function is called with ``(output_token_ids, logits)``, or with ``(prompt_token_ids,
output_token_ids, logits)`` if it takes three arguments. The ids are lists, ``logits`` [V] those of
one row, and it returns the new logits [V]. If it raises, only its own row ends.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quire.sampling.logits_processor import SampleStep, Selection
from quire.step import JoinedRow, Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class _UserRow:
    """The functions of one row, in the user's order."""

    functions: tuple[tuple[Callable[..., Any], bool], ...]  # (function, whether it takes prompts)
    prompt_token_ids: list[int]
    error: str | None = None  # why they cannot run at all


class UserProcessors:
    """Calls the users' functions row by row, for which the host reads tokens in every step."""

    def __init__(self, device: torch.device) -> None:
        self._by_row: dict[int, _UserRow] = {}

    def add_request(self, joined: JoinedRow) -> bool:
        sampling, error = joined.sampling, None
        if not sampling.runs_user_code:
            return False
        functions = sampling.logits_processors
        try:
            functions += tuple(named.load() for named in sampling.named_processors)
        except ValueError as failure:
            error = str(failure)
        self._by_row[joined.row] = _UserRow(
            functions=tuple((function, _wants_prompt(function)) for function in functions),
            prompt_token_ids=joined.token_ids[: joined.num_prompt_tokens].tolist(),
            error=error,
        )
        return True

    def remove_request(self, row: int) -> None:
        del self._by_row[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        errors: dict[int, str] = {}
        for position, row in zip(
            selection.positions_cpu.tolist(), selection.rows_cpu.tolist(), strict=True
        ):
            user = self._by_row[row]
            if user.error is not None:
                errors[row] = Refusal(user.error)
                continue
            output = step.token_ids[row, len(user.prompt_token_ids) : step.lengths_cpu[position]]
            output_ids = output.tolist()  # sync: the user's function reads the tokens
            try:
                logits[position] = _run(user, output_ids, logits[position].clone())
            except (Exception, SystemExit) as error:  # users' code may raise anything
                errors[row] = f"a logits processor failed: {type(error).__name__}: {error}"
        return errors


def _run(user: _UserRow, output_ids: list[int], logits: Tensor) -> Tensor:
    if logits.isnan().any():
        raise ValueError("the logits that it would get, those of the model, are not numbers (NaN)")
    for function, wants_prompt in user.functions:
        prompt = (list(user.prompt_token_ids),) if wants_prompt else ()
        answer = function(*prompt, list(output_ids), logits)
        if not isinstance(answer, Tensor) or answer.shape != logits.shape:
            got = tuple(answer.shape) if isinstance(answer, Tensor) else answer
            raise ValueError(
                f"{function!r} must return the logits, a tensor of shape {tuple(logits.shape)}, "
                f"got {got!r}"
            )
        if answer.isnan().any():
            raise ValueError(f"{function!r} returned logits that are not numbers (NaN)")
        logits = answer
    return logits


def _wants_prompt(function: Callable[..., Any]) -> bool:
    """Whether ``function`` takes three positional arguments; if a built-in does not tell, two."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required) >= 3
