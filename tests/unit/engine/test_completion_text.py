"""However tokens come, the same text and the same tokens stand before a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.engine.completion_text import StoppableText
from quire.engine.detokenizer import make_detokenizer
from quire.engine.stop_strings import StopChecker
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes import tokenizers

VOCABULARIES = {name: Vocabulary(make()) for name, make in tokenizers.FAMILIES.items()}
TEXTS = st.one_of(
    st.text(alphabet="ab é你好🙂\n", max_size=40),
    st.lists(st.sampled_from(tokenizers.SENTENCES), max_size=2).map(" ".join),
)
STOPS = st.lists(st.text(alphabet="abest é你🙂\n", min_size=1, max_size=4), min_size=1, max_size=3)


def run(
    vocabulary: Vocabulary, pieces: list[list[int]], stop: list[str], include: bool, unchecked: int
) -> tuple[str, int, str | None]:
    """The text, how many tokens it takes, and the stop string."""
    stream = StoppableText(make_detokenizer(vocabulary), StopChecker(stop, include), unchecked)
    text, num_tokens = "", 0
    for piece in pieces:
        new = stream.feed(piece)
        text, num_tokens = text + new.text, num_tokens + new.num_tokens
        if new.stop is not None:
            return text, num_tokens, new.stop
    rest = stream.finish()
    return text + rest.text, num_tokens, rest.stop


@pytest.mark.parametrize("family", VOCABULARIES)
@settings(max_examples=100, deadline=None)
@given(
    text=TEXTS,
    stop=STOPS,
    include=st.booleans(),
    unchecked=st.integers(0, 6),
    sizes=st.lists(st.integers(1, 9), max_size=12),
)
def test_the_end_does_not_depend_on_how_many_tokens_come_at_once(
    family: str, text: str, stop: list[str], include: bool, unchecked: int, sizes: list[int]
) -> None:
    vocabulary = VOCABULARIES[family]
    token_ids = vocabulary.tokenizer.encode(text, add_special_tokens=False)
    single = [[token_id] for token_id in token_ids]
    pieces, start = [], 0
    for size in [*sizes, len(token_ids)]:
        pieces.append(token_ids[start : start + size])
        start += size
    expected = run(vocabulary, single, stop, include, unchecked)
    assert run(vocabulary, pieces, stop, include, unchecked) == expected
