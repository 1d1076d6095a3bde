"""The prompts of a measurement, by the name of their dataset.

Token ids wherever lengths must be exact; a tokenizer is needed only to make or count text.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quire import log
from quire.bench.serving.requests import CHAT, LoadRequest
from quire.bench.standard_workloads import LAST_ID, standard_workload
from quire.bench.workload import random_prompts, vary
from quire.prompts import plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_FEWEST_TOKENS = 4  # of a ShareGPT turn; shorter ones say nothing about speed
_MOST_PROMPT_TOKENS = 1024
MOST_TOKENS = 2048  # of a question and its output


@dataclass(frozen=True)
class Source:
    """What prompts are made from."""

    arguments: argparse.Namespace  # settled, see `dataset_flags`
    tokenizer_name: str  # hub id or folder
    vocab_size: int | None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                self.tokenizer_name,
                trust_remote_code=self.arguments.trust_remote_code,
                use_fast=self.arguments.tokenizer_mode != "slow",
            )
        except Exception as error:  # the code of a checkpoint may raise anything
            raise ValueError(
                f"dataset {self.arguments.dataset_name} with backend {self.arguments.backend} "
                f"needs a tokenizer, and {self.tokenizer_name!r} has none that loads; give "
                "--tokenizer (a folder or a hub id)"
            ) from error

    @property
    def known_vocab_size(self) -> int:
        """The vocabulary's size or, if it is unknown, one that no large vocabulary falls below."""
        return self.vocab_size or LAST_ID + 1

    def prompt(self, token_ids: list[int]) -> str | list[int]:
        """The prompt as the API takes it: ids or, for chat, text, which may be tokenized
        differently."""
        if self.arguments.backend != CHAT:
            return token_ids
        text = self.tokenizer.decode(token_ids)
        assert isinstance(text, str)
        return text

    def num_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))


def load_requests(source: Source) -> list[LoadRequest]:
    """The requests that the flags describe."""
    name = source.arguments.dataset_name
    requests = DATASETS[name](source)
    if not requests:
        raise ValueError(f"data set {name} has no usable request; check its file and the lengths")
    return requests


def _random(source: Source) -> list[LoadRequest]:
    given = source.arguments
    prompts = random_prompts(
        given.num_prompts,
        given.random_input_len,
        vocab_size=source.known_vocab_size,
        seed=given.seed,
        prefix_len=given.random_prefix_len,
        range_ratio=given.random_range_ratio,
    )
    generator = np.random.default_rng(given.seed + 1)
    lengths = vary(generator, given.random_output_len, given.random_range_ratio, len(prompts))
    ids = (list(prompt["prompt_token_ids"]) for prompt in prompts)
    return [_of_ids(source, one, length) for one, length in zip(ids, lengths, strict=True)]


def _prefix_repetition(source: Source) -> list[LoadRequest]:
    """Groups of prompts that begin alike, all of one size and in random order."""
    given = source.arguments
    num_prefixes = given.prefix_repetition_num_prefixes
    per_prefix = given.num_prompts // num_prefixes
    if per_prefix == 0:
        raise ValueError(
            f"--num-prompts {given.num_prompts} are fewer than the "
            f"--prefix-repetition-num-prefixes {num_prefixes}; give at least as many"
        )
    if num_left := given.num_prompts % num_prefixes:
        log.setup()
        logger.warning(
            "--num-prompts %d are not the same number for each of %d prefixes; %d are sent",
            given.num_prompts,
            num_prefixes,
            given.num_prompts - num_left,
        )
    requests = []
    for group in range(num_prefixes):
        prompts = random_prompts(
            per_prefix,
            given.prefix_repetition_suffix_len,
            vocab_size=source.known_vocab_size,
            seed=given.seed * num_prefixes + group,
            prefix_len=given.prefix_repetition_prefix_len,
        )
        requests += [
            _of_ids(source, list(prompt["prompt_token_ids"]), given.prefix_repetition_output_len)
            for prompt in prompts
        ]
    return _shuffled(source, requests)


def _standard(source: Source) -> list[LoadRequest]:
    """A standard workload, whole: it decides how many requests there are."""
    given = source.arguments
    workload = standard_workload(
        given.workload, scale=given.scale, vocab_size=source.known_vocab_size
    )
    pairs = zip(workload.prompts, workload.output_lens, strict=True)
    return [_of_ids(source, prompt, length) for prompt, length in pairs]


def _sharegpt(source: Source) -> list[LoadRequest]:
    given = source.arguments
    requests = usual_requests(
        _shuffled(source, first_turns(dataset_file(given))),
        source.num_tokens,
        num_prompts=given.num_prompts,
        output_len=given.sharegpt_output_len,
    )
    return _enough(source, requests)


def usual_requests(
    turns: Iterable[tuple[str, str]],
    num_tokens: Callable[[str], int],
    *,
    num_prompts: int,
    output_len: int | None,
    most_tokens: int = MOST_TOKENS,
) -> list[LoadRequest]:
    """The first ``num_prompts`` questions of usual lengths; outputs are as long as the answers,
    unless ``output_len`` is given. ``most_tokens`` are those of a question and its output."""
    requests: list[LoadRequest] = []
    for question, answer in turns:
        if len(requests) == num_prompts:
            break
        num_prompt = num_tokens(question)
        num_output = output_len or num_tokens(answer)
        fewest_output = 1 if output_len else _FEWEST_TOKENS
        if (
            _FEWEST_TOKENS <= num_prompt <= _MOST_PROMPT_TOKENS
            and num_output >= fewest_output
            and num_prompt + num_output <= most_tokens
        ):
            requests.append(
                LoadRequest(
                    prompt=question, num_prompt_tokens=num_prompt, num_output_tokens=num_output
                )
            )
    return requests


def first_turns(path: Path) -> list[tuple[str, str]]:
    """Question and answer of every conversation that has both."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--dataset-path {path} is not JSON: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"--dataset-path {path} must hold a JSON list of conversations")
    pairs = []
    for number, entry in enumerate(entries, start=1):
        try:
            turns = entry.get("conversations") or entry.get("conversation") or []
            if len(turns) >= 2:
                pairs.append((_said(turns[0]), _said(turns[1])))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"entry {number} of {path} is unusable: {error!r}; a turn of its conversations "
                "must have a text as value or content"
            ) from None
    return pairs


def _said(turn: Mapping[str, Any]) -> str:
    """The text of a turn, which ShareGPT calls ``value`` and the chat API ``content``."""
    text = turn["value"] if "value" in turn else turn["content"]
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a text")
    return text


def _custom(source: Source) -> list[LoadRequest]:
    """Lines of {"prompt": ..., "output_tokens": ...}; the latter is used if the length is -1."""
    given = source.arguments
    lines = []
    for number, data in enumerate(dataset_file(given).read_bytes().split(b"\n"), start=1):
        if not data.strip():
            continue
        try:
            line = json.loads(data)
            lines.append((_custom_prompt(source, line), _custom_length(source, line)))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"line {number} of {given.dataset_path} is unusable: {error}"
            ) from None
    chosen = _shuffled(source, lines)[: given.num_prompts]
    return _enough(source, [_of_prompt(source, *one) for one in chosen])


DATASETS: Mapping[str, Callable[[Source], list[LoadRequest]]] = {
    "random": _random,
    "sharegpt": _sharegpt,
    "custom": _custom,
    "prefix_repetition": _prefix_repetition,
    "standard": _standard,
}


def _of_ids(source: Source, token_ids: list[int], num_output_tokens: int) -> LoadRequest:
    return LoadRequest(
        prompt=source.prompt(token_ids),
        num_prompt_tokens=len(token_ids),
        num_output_tokens=num_output_tokens,
    )


def _custom_prompt(source: Source, line: Any) -> str | list[int]:
    """A text or, where nothing is made of it here, token ids."""
    prompt = _field(line, "prompt")
    if isinstance(prompt, str):
        return prompt
    takes_ids = source.arguments.skip_chat_template and source.arguments.backend != CHAT
    if takes_ids and isinstance(prompt, list) and (ids := plain_ids(prompt)) is not None:
        return ids
    kinds = "a string or a list of token ids" if takes_ids else "a string"
    raise ValueError(f"its prompt {prompt!r:.80} is not {kinds}")


def _custom_length(source: Source, line: Any) -> int:
    """A whole number, which tables may write as 6.0."""
    wanted: int = source.arguments.custom_output_len
    if wanted != -1:
        return wanted
    length = _field(line, "output_tokens")
    if isinstance(length, bool) or not isinstance(length, (int, float)) or length % 1 != 0:
        raise ValueError(f"its output_tokens {length!r:.80} is not a whole number")
    if length < 1:
        raise ValueError(f"its output_tokens {length} is not at least 1")
    return int(length)


def _field(line: Any, name: str) -> Any:
    if not isinstance(line, dict) or name not in line:
        raise ValueError(f"it is not a JSON object with the key {name}")
    return line[name]


def _of_prompt(source: Source, prompt: str | list[int], num_output_tokens: int) -> LoadRequest:
    """A request of ``prompt``, in the chat template unless that is not wanted or a chat endpoint
    does it. Without the template no tokenizer is needed, and the server counts a text."""
    if not isinstance(prompt, str):
        return _of_ids(source, prompt, num_output_tokens)
    if source.arguments.skip_chat_template or source.arguments.backend == CHAT:
        return LoadRequest(prompt=prompt, num_prompt_tokens=0, num_output_tokens=num_output_tokens)
    text = _templated(source, prompt)
    return LoadRequest(
        prompt=text, num_prompt_tokens=source.num_tokens(text), num_output_tokens=num_output_tokens
    )


def _templated(source: Source, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    text = source.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert isinstance(text, str)
    return text


def _shuffled(source: Source, items: list[Any]) -> list[Any]:
    if not source.arguments.disable_shuffle:
        random.Random(source.arguments.seed).shuffle(items)
    return items


def _enough(source: Source, requests: list[LoadRequest]) -> list[LoadRequest]:
    """``requests``, repeated up to --num-prompts unless --no-oversample is given."""
    given = source.arguments
    if 0 < len(requests) < given.num_prompts:
        log.setup()
        logger.warning(
            "--dataset-path %s has %d usable prompts for --num-prompts %d; %s",
            given.dataset_path,
            len(requests),
            given.num_prompts,
            "no more are sent" if given.no_oversample else "some are sent several times",
        )
    return requests if given.no_oversample else oversampled(requests, given.num_prompts, given.seed)


def oversampled(requests: list[LoadRequest], num_prompts: int, seed: int) -> list[LoadRequest]:
    """``requests``, with random repetitions if they are fewer than ``num_prompts``."""
    missing = num_prompts - len(requests)
    if missing <= 0 or not requests:
        return requests
    return requests + random.Random(seed).choices(requests, k=missing)


def dataset_file(arguments: argparse.Namespace) -> Path:
    """The file that the flags name; ``ValueError`` if there is none."""
    if arguments.dataset_path is None:
        raise ValueError(
            f"data set {arguments.dataset_name} is read from a file; name it with --dataset-path"
        )
    path = Path(arguments.dataset_path)
    if not path.is_file():
        raise ValueError(f"--dataset-path {path} is not a file")
    return path
