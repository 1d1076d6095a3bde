"""The options of a server, as Python code gives them."""

from __future__ import annotations

import pytest

from quire.server.args import ServerArgs


def test_a_list_given_as_text_is_read_as_on_the_command_line() -> None:
    args = ServerArgs(api_key="secret", allowed_origins='["https://a", "https://b"]')
    assert args.api_key == ["secret"]
    assert args.allowed_origins == ["https://a", "https://b"]
    with pytest.raises(ValueError, match="'https://a' is not JSON"):
        ServerArgs(allowed_origins="https://a")
