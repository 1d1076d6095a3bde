"""Owns the evaluation: greedy accuracy of each skill on combinations that training never saw."""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path
from random import Random

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from .chatml import prompt_and_answer
from .corpus import mixture
from .corpus.base import Talk

_ROOM = 12
_STORY_ROOM = 600


def _calls(text: str) -> list[object]:
    """The tool calls of an answer; the spaces of an expression do not count."""
    if not text.startswith("<tool_call>"):
        return [text]
    return [json.loads(part.replace("</tool_call>", "")) for part in text.split("<tool_call>")[1:]]


def correct(item: Talk, reference: str, answer: str, ended: bool) -> bool:
    """Whether an answer passes the check of its dialogue."""
    kind = item.check.kind
    if item.messages[0][0] == "text" and kind == "exact":
        return answer.startswith(reference)
    if not ended or kind == "ends":
        return ended
    try:
        if kind == "json":
            return bool(json.loads(answer) == json.loads(reference))
        if kind == "calls":
            return _calls(answer) == _calls(reference)
    except ValueError:
        return False
    if kind == "story":
        return answer.endswith("The end.") and all(w in answer for w in item.check.want)
    return answer == reference


def _batch(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    items: list[tuple[str, str]],
    longer: bool,
) -> list[tuple[str, bool]]:
    inputs = tokenizer(
        [prompt for prompt, _ in items], return_tensors="pt", padding=True, padding_side="left"
    ).to(model.device)
    room = _STORY_ROOM if longer else _ROOM
    longest = max(len(tokenizer(answer)["input_ids"]) for _, answer in items)
    with torch.inference_mode():
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=longest + room,
            do_sample=False,
        )
    found = []
    for row in out[:, inputs["input_ids"].shape[1] :].tolist():
        ends = [i for i, token in enumerate(row) if token in (0, 2)]
        cut = ends[0] if ends else len(row)
        found.append((tokenizer.decode(row[:cut]), bool(ends)))
    return found


def questions(skill: str, count: int, seed: int, limit: int) -> list[Talk]:
    """Held-out dialogues of a skill, no longer than ``limit`` characters."""
    r = Random(zlib.crc32(skill.encode()) + seed)
    items: list[Talk] = []
    while len(items) < count:
        item = mixture.question(r, skill)
        if len(prompt_and_answer(item)[0]) <= limit:
            items.append(item)
    return sorted(items, key=lambda t: len(prompt_and_answer(t)[0]))


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """The accuracy of every skill; failures are printed when asked for."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    dtype = torch.bfloat16 if args.bfloat16 else torch.float32
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=dtype).to(args.device).eval()
    table: dict[str, float] = {}
    for skill in args.skills or mixture.SKILLS:
        items = questions(skill, args.count, args.seed, args.limit)
        good, shown = 0, 0
        for at in range(0, len(items), args.batch):
            part = items[at : at + args.batch]
            pairs = [prompt_and_answer(item) for item in part]
            longer = any(item.check.kind in ("story", "ends") for item in part)
            answers = _batch(model, tokenizer, pairs, longer)
            for item, (prompt, reference), (answer, ended) in zip(
                part, pairs, answers, strict=True
            ):
                passed = correct(item, reference, answer, ended)
                good += passed
                if not passed and shown < args.show:
                    shown += 1
                    print(f"  {skill}: {prompt[-160:]!r}\n    {answer!r}\n    {reference!r}")
        table[skill] = 100 * good / len(items)
        print(f"{skill:26s} {table[skill]:6.1f} %", flush=True)
    print(f"{'lowest':26s} {min(table.values()):6.1f} %")
    print(f"{'mean':26s} {sum(table.values()) / len(table):6.1f} %")
    return table


def main() -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--limit", type=int, default=6000, help="longest prompt in characters")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="failures to print for each skill")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--skills", nargs="*")
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()
