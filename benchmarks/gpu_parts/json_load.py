"""Requests for JSON: schemas of lists that are too long to end, and a made-up vocabulary."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _item(name: dict[str, int], tag: dict[str, int]) -> dict[str, Any]:
    """A schema of one item; ``name`` and ``tag`` are the length limits of its strings."""
    tags = {"type": "array", "items": {"type": "string", **tag}, "maxItems": 3}
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", **name},
            "count": {"type": "integer", "minimum": 0, "maximum": 99999},
            "kind": {"enum": ["small", "medium", "large"]},
            "tags": tags,
        },
        "required": ["name", "count", "kind", "tags"],
    }


ITEM = _item({}, {})
# A random model's strings all reach their limits, where computing a mask walks over the vocabulary
# to find the tokens that are short enough.
LIMITED = _item({"maxLength": 40}, {"maxLength": 12})
PIECES = (
    '"',
    '":',
    '": ',
    '","',
    '", "',
    "', '",
    '{"',
    '"}',
    '"},{"',
    "[",
    "]",
    "[]",
    "{}",
    ": ",
    ", ",
)


def endless(item: Any) -> dict[str, Any]:
    """The schema of a list of ``item``, too long to end. Its definitions move to the root."""
    roots = {}
    if isinstance(item, dict):
        roots = {word: item[word] for word in ("$defs", "definitions") if word in item}
        item = {word: value for word, value in item.items() if word not in roots}
    items = {"type": "array", "items": item, "minItems": 5000}
    return {**roots, "type": "object", "properties": {"items": items}, "required": ["items"]}


def write_tokenizer(folder: Path, size: int) -> None:
    """Write a tokenizer to a dummy model's folder, with a made-up vocabulary of ``size`` tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    as_text = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    texts = dict.fromkeys(["<begin>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    for word in _words():
        if len(texts) == size:
            break
        texts[as_text.pre_tokenize_str(word)[0][0]] = None
    tokenizer = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = as_text, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<begin>", "<end>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def _words() -> Iterator[str]:
    """Pieces of JSON, and words with and without a space before them."""
    yield from PIECES
    rng = random.Random(0)
    while True:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9)))
        shape = rng.random()
        if shape < 0.4:
            word = " " + word
        elif shape < 0.5:
            word = str(rng.randint(0, 999))
        elif shape < 0.6:
            word = rng.choice(PIECES) + word
        elif shape < 0.7:
            word = "".join(chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(2))
        yield word
