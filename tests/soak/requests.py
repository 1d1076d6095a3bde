"""Random requests for the bundled models: every sampling feature, in every combination that is
allowed. Knows nothing about engines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from quire.prompts import PromptType
from quire.sampling_params import RequestOutputKind, SamplingParams

VOCAB_SIZE = 4096
_QUESTIONS = (
    "What is the capital of {}?",
    "My name is {}. What is my name?",
    "Tell me a short story about {}.",
    "Repeat: {} and {}, and then {} again.",
    "{}的首都是哪里？",
)
_WORDS = "Peru Alia dog Hana three blue window 12 + 30 Montag 你好 🎉 naïve".split()
_STOP_STRINGS = (".", " the", "is", "。", "\n", "qq", "The end", "<|im_end|>")
_BAD_WORDS = ("the", "Paris", "I do not", "的")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request as a caller makes it, and when its caller loses interest."""

    name: str
    prompt: PromptType
    params: SamplingParams
    priority: int
    abort_after: int | None  # engine steps after it was added

    def calm(self) -> Ask:
        """The same request for a caller who waits for its end."""
        params = self.params.clone()
        params.output_kind = RequestOutputKind.FINAL_ONLY
        return dataclasses.replace(self, params=params, priority=0, abort_after=None)


def random_asks(
    random: Random, count: int, *, longest_prompt: int, max_tokens: int, with_priorities: bool
) -> list[Ask]:
    stems = [_random_ids(random, longest_prompt) for _ in range(4)]
    return [
        Ask(
            name=f"r{number}",
            prompt=_random_prompt(random, stems, longest_prompt),
            params=_random_params(random, max_tokens),
            priority=random.randint(-2, 2) if with_priorities else 0,
            abort_after=random.randint(0, 3 * max_tokens) if random.random() < 0.15 else None,
        )
        for number in range(count)
    ]


def _random_ids(random: Random, longest: int) -> list[int]:
    return [random.randrange(VOCAB_SIZE) for _ in range(random.randint(1, longest))]


def _random_prompt(random: Random, stems: list[list[int]], longest: int) -> PromptType:
    """A chat question, plain text, or token ids that often begin like others'."""
    kind = random.random()
    if kind < 0.5:
        question = random.choice(_QUESTIONS).format(*random.choices(_WORDS, k=3))
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return text if kind < 0.4 else {"prompt": text, "cache_salt": random.choice("ab")}
    if kind < 0.6:
        return " ".join(random.choices(_WORDS, k=random.randint(1, 6)))
    stem = random.choice(stems)
    stem = stem[: random.randint(0, len(stem))]
    return {"prompt_token_ids": (stem + _random_ids(random, longest))[:longest]}


def _random_params(random: Random, max_tokens: int) -> SamplingParams:
    fields: dict[str, Any] = {
        "max_tokens": random.randint(1, max_tokens),
        "seed": random.randrange(1000),
        "output_kind": random.choice(list(RequestOutputKind)),
        "ignore_eos": random.random() < 0.5,
    }
    kind = random.random()
    if kind < 0.15:
        fields |= _beams(random)
    elif kind < 0.45:
        fields |= {"temperature": 0.0, "n": random.choice((1, 1, 1, 2))}
    else:
        fields |= _sampling(random)
    if kind >= 0.15 and random.random() < 0.4:
        fields |= {"logprobs": random.choice((0, 1, 5))}
    if kind >= 0.15 and random.random() < 0.2:
        fields |= {"prompt_logprobs": random.choice((0, 3))}
    for chance, make in ((0.3, _stops), (0.3, _penalties), (0.3, _masks)):
        if random.random() < chance:
            fields |= make(random, fields["max_tokens"])
    if "stop" in fields and kind < 0.15:  # beams end at tokens only
        fields["stop"] = [text for text in fields["stop"] if text == "<|im_end|>"]
    return SamplingParams(**fields)


def _beams(random: Random) -> dict[str, Any]:
    return {
        "use_beam_search": True,
        "n": random.randint(1, 4),
        "length_penalty": random.choice((0.0, 1.0, 2.0)),
        "early_stopping": random.choice((False, True, "never")),
    }


def _sampling(random: Random) -> dict[str, Any]:
    n = random.choice((1, 1, 1, 2, 3, 5))
    fields: dict[str, Any] = {"temperature": random.choice((0.5, 1.0, 1.6)), "n": n}
    if random.random() < 0.5:
        fields |= {
            "top_k": random.choice((0, 2, 50)),
            "top_p": random.choice((0.6, 0.95, 1.0)),
            "min_p": random.choice((0.0, 0.05)),
        }
    if random.random() < 0.1:
        fields["best_of"] = n + random.randint(0, 2)
    return fields


def _stops(random: Random, max_tokens: int) -> dict[str, Any]:
    return {
        "stop": random.sample(_STOP_STRINGS, random.randint(1, 3)),
        "include_stop_str_in_output": random.random() < 0.5,
        "stop_token_ids": random.sample(range(VOCAB_SIZE), 12) if random.random() < 0.5 else None,
        "min_tokens": random.randint(0, min(4, max_tokens)),
    }


def _penalties(random: Random, max_tokens: int) -> dict[str, Any]:
    return {
        "repetition_penalty": random.choice((1.0, 1.3)),
        "presence_penalty": random.choice((0.0, 0.7)),
        "frequency_penalty": random.choice((0.0, -0.4, 1.1)),
    }


def _masks(random: Random, max_tokens: int) -> dict[str, Any]:
    some = random.sample(range(VOCAB_SIZE), 300)
    fields: tuple[dict[str, Any], ...] = (
        {"logit_bias": {token: random.choice((-100.0, 4.0)) for token in some[:20]}},
        {"allowed_token_ids": some},
        {"bad_words": random.sample(_BAD_WORDS, 2)},
        {"logits_processors": [_favour_even_tokens]},
    )
    return random.choice(fields)


def _favour_even_tokens(token_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    """A user's own function; it depends on the length, so a lost or doubled token shows."""
    logits[len(token_ids) % 2 :: 2] += 2.0
    return logits
