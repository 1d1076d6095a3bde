"""Marks as tokens: found however a tokenizer joins them to what stands around them."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from quire.assets import TINY_CHAT
from quire.reasoning import reasoning_format
from quire.structured import Thinking, TokenMark
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


def row_after(ends: tuple[TokenMark, ...], token_ids: list[int]) -> ThinkingRow:
    row = ThinkingRow(Thinking(begins=(), ends=ends, is_open=True))
    for token_id in token_ids:
        if row.place is not Place.OVER:
            row.accept(token_id)
    return row


@pytest.mark.parametrize("text", ["a</th>", "a.</th>", "a. </th>\n", "a\n</th>\n\n", "</th>x"])
def test_a_tag_is_found_whatever_stands_around_it(text: str) -> None:
    tokenizer = joining()
    mark = TokenMarks(tokenizer).of("</th>")
    assert [place[0] for place in mark] == tokenizer.encode("</th>")
    assert row_after((mark,), tokenizer.encode(text)).place is Place.OVER


def test_what_is_no_tag_is_none() -> None:
    tokenizer = joining()
    mark = TokenMarks(tokenizer).of("</th>")
    for text in ("<th>", "</t>", "</tha>", "< /th>", "</th"):
        assert row_after((mark,), tokenizer.encode(text)).place is Place.INSIDE, text


def test_a_mark_that_is_one_special_token_has_no_others() -> None:
    tokenizer = joining()
    assert TokenMarks(tokenizer).of("<think>") == ((tokenizer.convert_tokens_to_ids("<think>"),),)


@pytest.mark.parametrize("kind", ["", " <|constrain|>json", "<|constrain|>json", " json"])
def test_every_header_of_a_final_message_begins_the_answer(kind: str) -> None:
    tokenizer = joining()
    ends = TokenMarks(tokenizer).of_all(reasoning_format("openai_gptoss").answer_begins)
    text = f"<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final{kind}"
    assert row_after(ends, tokenizer.encode(text)).place is Place.INSIDE
    assert row_after(ends, tokenizer.encode(text + "<|message|>")).place is Place.OVER


@pytest.mark.parametrize("text", ["a.\n\nHere is my response: ok", "a. Here's my response: ok"])
def test_every_spelling_of_granites_answer_begins_it(text: str) -> None:
    for tokenizer in (joining(), load_tokenizer(TINY_CHAT)):
        ends = TokenMarks(tokenizer).of_all(reasoning_format("granite").answer_begins)
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        assert row_after(ends, token_ids).place is Place.OVER
