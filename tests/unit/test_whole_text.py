"""Half of a surrogate pair is refused where it stands; everything else is text."""

from __future__ import annotations

import pytest

from quire.whole_text import require_whole_text


@pytest.mark.parametrize("text", ["", "plain", "\U0001f600", "\ufffd\x00", "\ud7ff\ue000"])
def test_text_is_accepted(text: str) -> None:
    require_whole_text("a prompt", text)


@pytest.mark.parametrize("half", ["\ud800", "\udbff", "\udc80", "\udfff"])
def test_half_of_a_pair_is_named_with_its_place_and_the_remedy(half: str) -> None:
    with pytest.raises(ValueError, match=r"^a prompt has half of a surrogate pair") as error:
        require_whole_text("a prompt", f"ab{half}c")
    message = str(error.value)
    assert f"{half!r} at character 2" in message and "leave it out" in message
    assert message.isascii()  # it can be printed
    remedy = f"ab{half}c".encode(errors="replace").decode()
    assert remedy == "ab?c"
