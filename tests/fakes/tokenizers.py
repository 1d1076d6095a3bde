"""Small real tokenizers of every family, trained in a moment from a few sentences."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertGenerationTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
)

SENTENCES = [
    "The capital of France is Paris. It's a large city, isn't it?",
    "hello world  with two spaces\nand lines\n\nand\ttabs",
    "你好世界，今天天气很好。",
    "I like cats and dogs 🙂👍 and naïve café résumés",
    "numbers 1234567890 and code: def f(x): return x + 1",
    "Привет мир, как дела?",
] * 40
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def byte_level() -> Any:
    """Byte-level BPE with ChatML tokens, like GPT-2's and Qwen's."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", chat_template=CHATML
    )


@cache
def byte_fallback() -> Any:
    """Sentencepiece BPE with <0xXX> tokens, like Llama 2's; adds a BOS token."""
    folder = _sentencepiece_folder("LlamaTokenizer", "tokenizer.model", "bpe", byte_fallback=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


@cache
def unigram() -> Any:
    """Sentencepiece unigram, like T5's: a Metaspace decoder, unknown characters are <unk>."""
    return AutoTokenizer.from_pretrained(
        _sentencepiece_folder("T5Tokenizer", "spiece.model", "unigram", byte_fallback=False)
    )


@cache
def word_piece() -> Any:
    """WordPiece, like BERT's: decoding puts spaces between words."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[SEP]"], show_progress=False
    )
    core.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[SEP]")


@cache
def slow_sentencepiece() -> Any:
    """A tokenizer in Python over sentencepiece; decoding strips spaces at both ends."""
    folder = _sentencepiece_folder(
        "BertGenerationTokenizer", "spiece.model", "bpe", byte_fallback=False
    )
    return BertGenerationTokenizer(str(Path(folder) / "spiece.model"))


@cache
def slow_bytes() -> Any:
    """A tokenizer in Python whose tokens are bytes; decoding drops incomplete characters."""
    return ByT5Tokenizer()


def capital_letters(model: str) -> Any:
    """A token a letter and no unknown token, like those of protein models."""
    tokens = ["<|pad|>", "<|bos|>", "<|eos|>", *"12ABCDEFGHIKLMNOPQRSTUVWXYZ"]
    vocab = {token: i for i, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocab, []) if model == "BPE" else models.WordLevel(vocab))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>"
    )


FAMILIES = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "unigram": unigram,
    "word_piece": word_piece,
    "slow_sentencepiece": slow_sentencepiece,
    "slow_bytes": slow_bytes,
}


def _sentencepiece_folder(
    tokenizer_class: str, file: str, model_type: str, *, byte_fallback: bool
) -> str:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=400 if byte_fallback else 150,
        model_type=model_type,
        byte_fallback=byte_fallback,
        character_coverage=0.98,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    folder = Path(tempfile.mkdtemp(prefix="tokenizer-"))
    (folder / file).write_bytes(model.getvalue())
    config = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)
