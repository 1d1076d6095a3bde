"""Refuses texts that cannot be encoded; tokenizers refuse them without saying why."""

from __future__ import annotations


def require_whole_text(name: str, text: str) -> None:
    """``ValueError`` for half of a surrogate pair in ``text``, which messages call ``name``."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has half of a surrogate pair, {text[error.start]!r} at character "
            f"{error.start}, which is not a character; give the whole pair, or leave it out "
            "(text.encode(errors='replace').decode() puts '?' in its place)."
        ) from None
