"""Owns the tokenizer: byte-level BPE that splits digits and keeps capitalised words apart.

A space before a capitalised word or a digit is a token of its own, so that a name is the same
tokens in a sentence, at its start and inside JSON: copying it needs no second spelling.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .chatml import CHAT_TEMPLATE, END, END_OF_TEXT, START, TOOL_TOKENS, segments
from .corpus import mixture

VOCABULARY = 4096
_PATTERN = (
    r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})| ?\p{Ll}+|\p{Lu}\p{Ll}+|\p{Lu}+|\p{N}|\p{Lo}|"
    r" ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+|\p{L}"
)


def build(texts: Iterator[str]) -> Tokenizer:
    """Train the tokenizer on ``texts``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TOOL_TOKENS),
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Tool tags are tokens that stay in decoded text, so that a server can parse them.
    tokenizer.add_tokens(list(TOOL_TOKENS))
    return tokenizer


def sample(seed: int, count: int) -> Iterator[str]:
    """Training documents without the tags of the chat template."""
    r = Random(seed)
    for _ in range(count):
        for text, _ in segments(mixture.document(r)):
            for tag in (START, END, END_OF_TEXT, *TOOL_TOKENS):
                text = text.replace(tag, "\n")
            yield text


CONFIG = {
    "add_bos_token": False,
    "add_prefix_space": False,
    "bos_token": None,
    "clean_up_tokenization_spaces": False,
    "eos_token": END,
    "model_max_length": 2048,
    "pad_token": END_OF_TEXT,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": None,
}


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, the chat template in it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {**CONFIG, "chat_template": CHAT_TEMPLATE}
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Train the tokenizer and write it to a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    save(build(sample(args.seed, args.documents)), args.out)


if __name__ == "__main__":
    main()
