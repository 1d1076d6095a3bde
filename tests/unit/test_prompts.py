"""Every form a prompt can be written in, and clear errors for the rest."""

from __future__ import annotations

from array import array
from collections import UserList, UserString, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from quire.prompts import ParsedPrompt, parse_prompt, parse_prompts


def text(value: str) -> ParsedPrompt:
    return ParsedPrompt(text=value)


def ids(*values: int) -> ParsedPrompt:
    return ParsedPrompt(token_ids=list(values))


class Column(Sequence[Any]):
    """As data sets have them: read like a list, and no list."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


@pytest.mark.parametrize(
    ("prompts", "parsed"),
    [
        ("a b", [text("a b")]),
        (["a", "b"], [text("a"), text("b")]),
        ([1, 2], [ids(1, 2)]),
        ([[1, 2], [3]], [ids(1, 2), ids(3)]),
        (((1, 2), [3]), [ids(1, 2), ids(3)]),
        (np.array([1, 2]), [ids(1, 2)]),
        ([np.array([1, 2]), torch.tensor([3])], [ids(1, 2), ids(3)]),
        (torch.tensor([[1, 2], [3, 4]]), [ids(1, 2), ids(3, 4)]),
        ([np.int64(5), 6], [ids(5, 6)]),
        ({"prompt": "a"}, [text("a")]),
        (["a", {"prompt_token_ids": [1]}], [text("a"), ids(1)]),
        ({"prompt": "a", "multi_modal_data": None}, [text("a")]),
        (
            {"prompt": "a", "prompt_token_ids": [1], "cache_salt": "s"},
            [ParsedPrompt(text="a", token_ids=[1], cache_salt="s")],
        ),
        ([], []),
        (Column("a", "b"), [text("a"), text("b")]),
        (Column("a"), [text("a")]),
        (UserList(["a", {"prompt": "b"}]), [text("a"), text("b")]),
        (deque(["a", "b"]), [text("a"), text("b")]),
        (Column([1, 2], Column(3)), [ids(1, 2), ids(3)]),
        (Column(1, 2), [ids(1, 2)]),
        (array("i", [1, 2]), [ids(1, 2)]),
        ({"prompt_token_ids": Column(1, 2)}, [ids(1, 2)]),
        (np.array(["a", "b"]), [text("a"), text("b")]),
        (np.array(["a", "b"], dtype=object), [text("a"), text("b")]),
    ],
)
def test_forms_of_prompts(prompts: Any, parsed: list[ParsedPrompt]) -> None:
    assert parse_prompts(prompts) == parsed


def test_older_prompt_token_ids() -> None:
    assert parse_prompts(None, [[1], [2, 3]]) == [ids(1), ids(2, 3)]
    assert parse_prompts(None, prompt_token_ids=[1, 2]) == [ids(1, 2)]
    assert parse_prompts(["a"], [[1, 2]]) == [ParsedPrompt(text="a", token_ids=[1, 2])]
    assert parse_prompts(None, Column([1], [2, 3])) == [ids(1), ids(2, 3)]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, "no prompts"),
        (3.5, "prompts cannot be 3.5"),
        (b"a", "prompts cannot be b'a'"),
        (memoryview(b"ab"), "prompts cannot be <memory"),
        ([memoryview(b"ab")], "must be ints, not <memory"),
        (UserString("12"), "prompts cannot be '12'"),
        (["a", UserString("12")], "mixes prompts with '12'"),
        (np.array([0.5, 1.0]), "must be ints, not 0.5"),
        (["a", 3], "mixes prompts with 3"),
        ([[]], "no token ids"),
        ([1, -2], "-2 is negative"),
        ([1, 2.0], "must be ints, not 2.0"),
        ([True, False], "must be ints, not True"),
        ([["a", "b"]], "must be ints, not 'a'"),
        ([["a", "b"]], "a list of texts inside a list of prompts: flatten it"),
        (["a", ("b",)], r"^prompts\[1\]: .* flatten it"),
        ([np.array([0.5])], "must be ints, not 0.5"),
        ([torch.tensor([[1, 2]])], r"shape \(1, 2\)"),
        ({"promt": "a"}, "no key 'promt'"),
        ({"cache_salt": "s"}, "'prompt' or 'prompt_token_ids'"),
        ({"prompt": 3}, "'prompt' must be a string"),
        ({"prompt": "a", "cache_salt": ""}, "'cache_salt'"),
        (
            {"prompt": "a", "multi_modal_data": {"image": 1}},
            "multi-modal prompts are not supported",
        ),
        ({"prompt_embeds": [1.0]}, "embedding prompts are not supported"),
        ({"encoder_prompt": "a", "decoder_prompt": "b"}, "encoder-decoder prompts are not"),
    ],
)
def test_wrong_prompts_are_named(prompts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompts(prompts)


def test_prompts_of_a_list_are_named_by_their_place() -> None:
    assert [prompt.name for prompt in parse_prompts(["a", "b"])] == ["prompts[0]", "prompts[1]"]
    assert [prompt.name for prompt in parse_prompts(["a"])] == ["the prompt"]
    assert parse_prompts(None, [[1], [2]])[1].name == "prompt_token_ids[1]"
    with pytest.raises(ValueError, match=r"^prompts\[1\]: a prompt has no token ids"):
        parse_prompts([[1], []])
    with pytest.raises(ValueError, match=r"^a prompt has no token ids"):
        parse_prompts([[]])


def test_wrong_older_token_ids() -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 prompt_token_ids"):
        parse_prompts(["a", "b"], [[1]])
    with pytest.raises(ValueError, match="prompt_token_ids must be a list of token ids"):
        parse_prompts(None, ["a"])
    with pytest.raises(ValueError, match=r"^prompt_token_ids cannot be 3 \(int\)"):
        parse_prompts(["a"], 3)  # type: ignore[arg-type]


def test_one_prompt() -> None:
    assert parse_prompt("a") == text("a")
    with pytest.raises(ValueError, match="a prompt cannot be None"):
        parse_prompt(None)
