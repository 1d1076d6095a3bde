"""Marks as tokens: found however they are spelled, and whatever they are joined to."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from quire.assets import TINY_CHAT
from quire.reasoning import Opening, Reasoning, reasoning_format
from quire.structured import Thinking, TokenBytes
from quire.structured_outputs.token_table import token_table
from quire.tokenizer.loading import load_tokenizer
from quire.tokenizer.token_marks import TokenMarks
from quire.worker.thinking import Place, ThinkingRow


def joining() -> PreTrainedTokenizerFast:
    """Has tokens for a point or a space before a tag, and for line breaks behind it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("<", "/"), (".", "</"), ("Ġ", "</"), (">", "Ċ"), ("t", "h"), ("a", ">")]
    vocab = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="!")
    special = ["<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|start|>", "<think>"]
    made.add_tokens([AddedToken(one, special=True) for one in special])
    return made


def row_after(
    tokenizer: PreTrainedTokenizerBase, ends: tuple[str, ...], token_ids: list[int]
) -> ThinkingRow:
    thinking = Thinking(begins=(), ends=TokenMarks(tokenizer).of_all(ends), is_open=True)
    row = ThinkingRow(thinking, texts_of(tokenizer), is_strict=True)
    for token_id in token_ids:
        if row.place is not Place.OVER:
            row.accept(token_id)
    return row


def texts_of(tokenizer: PreTrainedTokenizerBase) -> TokenBytes:
    table = token_table(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    return TokenBytes(lambda: table.tokens)


def spelled(text: str, vocabulary: Collection[str], rng: random.Random) -> Iterator[str]:
    """By any of the tokens that could be next."""
    while text:
        piece = rng.choice([text[:n] for n in range(1, 9) if text[:n] in vocabulary])
        yield piece
        text = text.removeprefix(piece)


@pytest.mark.parametrize("text", ["a</th>", "a.</th>", "a. </th>\n", "a\n</th>\n\n", "</th>x"])
def test_a_tag_is_found_whatever_stands_around_it(text: str) -> None:
    tokenizer = joining()
    assert row_after(tokenizer, ("</th>",), tokenizer.encode(text)).place is Place.OVER


def test_what_is_no_tag_is_none() -> None:
    tokenizer = joining()
    for text in ("<th>", "</t>", "</tha>", "< /th>", "</th"):
        row = row_after(tokenizer, ("</th>",), tokenizer.encode(text))
        assert row.place is Place.INSIDE, text


def test_a_mark_is_a_token_of_its_own_only_if_it_was_added() -> None:
    marks = TokenMarks(joining())
    assert marks.of("<think>").is_token
    assert not marks.of("</").is_token  # one token, but ".</" is another that holds it
    assert not marks.of("<|end|><|start|>").is_token


@pytest.mark.parametrize("name", ["tags:Hello,help", "qwen3", "granite", "deepseek_r1"])
def test_a_thought_is_over_where_the_parser_says_so(name: str) -> None:
    """However it is spelled: no token too early or too late."""
    tokenizer, format = load_tokenizer(TINY_CHAT), reasoning_format(name)
    marks, texts = TokenMarks(tokenizer), texts_of(tokenizer)
    begins, ends = marks.of_all(format.begins), marks.of_all(format.answer_begins)
    rng = random.Random(name)
    by_text = {tokenizer.decode([i]): i for i in tokenizer.get_vocab().values()}
    for _ in range(60):
        end = rng.choice(format.answer_begins)
        text = f"{rng.choice(format.begins)} a </ he Here is{end[:-1]} b{end} yes"
        parser = format.parser(Opening.UNKNOWN)
        answer = [one.text for one in parser.feed(text) if not isinstance(one, Reasoning)]
        assert answer == [" yes"]
        row = ThinkingRow(Thinking(begins=begins, ends=ends, is_open=None), texts, is_strict=True)
        shown = ""
        for piece in spelled(text, by_text, rng):
            shown += piece
            if row.place is not Place.OVER:
                row.accept(by_text[piece])
            assert (row.place is Place.OVER) == (end in shown), shown


@pytest.mark.parametrize("kind", ["", " <|constrain|>json", "<|constrain|>json", " json"])
def test_every_header_of_a_final_message_begins_the_answer(kind: str) -> None:
    tokenizer = joining()
    ends = reasoning_format("openai_gptoss").answer_begins
    text = f"<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final{kind}"
    assert row_after(tokenizer, ends, tokenizer.encode(text)).place is Place.INSIDE
    whole = tokenizer.encode(text + "<|message|>")
    assert row_after(tokenizer, ends, whole).place is Place.OVER
    letters = [tokenizer.encode(letter)[0] for letter in text + "<|message|>"]
    assert row_after(tokenizer, ends, letters).place is Place.OVER


@pytest.mark.parametrize("text", ["a.\n\nHere is my response: ok", "a. Here's my response: ok"])
def test_every_spelling_of_granites_answer_begins_it(text: str) -> None:
    for tokenizer in (joining(), load_tokenizer(TINY_CHAT)):
        ends = reasoning_format("granite").answer_begins
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        assert row_after(tokenizer, ends, token_ids).place is Place.OVER
