"""What the engine needs from a tokenizer to turn token ids into text piece by piece.

Knows nothing about requests. Tokenizers are those of `transformers`, fast or slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from quire.tokenizer.byte_level import bytes_of_token, is_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"  # what a decoder shows for bytes that are not, or not yet, a character


class Vocabulary:
    """Plain decoding, and facts about single tokens, computed once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        vocab = tokenizer.get_vocab()
        token_ids = {*vocab.values(), *tokenizer.added_tokens_decoder}
        self.size = max(token_ids) + 1  # ids from here on have no text
        self._unused_ids = frozenset(range(self.size)) - token_ids  # unused ids below size
        self._backend = _plain_backend(tokenizer)
        self.special_ids = frozenset(tokenizer.all_special_ids) | {
            token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        # Tokens like <0xE4>: one raw byte each. Byte-level tokenizers have none.
        self.byte_values = _byte_values(tokenizer, vocab)
        # Decoding tokens after this one keeps the space that many decoders remove from the first
        # token.
        self.anchor_id = self._visible_token()
        self._anchor_text = self.decode([self.anchor_id])
        self._texts: dict[int, str] = {}
        # Whether a text is the concatenation of its tokens' `token_bytes`.
        self.is_byte_level = self._backend is not None and is_byte_level(self._backend)
        self._bytes: dict[int, bytes] = {}

    def decode(self, token_ids: list[int], spaces_between_special_tokens: bool = True) -> str:
        """The text of all ``token_ids``, special ones too, without any clean-up of spaces."""
        if self._backend is not None:
            return str(self._backend.decode(token_ids, skip_special_tokens=False))
        # Only slow tokenizers with code of their own know the option; True is their default.
        options = {} if spaces_between_special_tokens else {"spaces_between_special_tokens": False}
        text = self.tokenizer.decode(
            token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False, **options
        )
        return str(text)

    def has(self, token_id: int) -> bool:
        """Whether the id is a token; some decoders raise for other ids."""
        return 0 <= token_id < self.size and token_id not in self._unused_ids

    def token_texts(self, token_ids: list[int]) -> list[str]:
        """The text of each token as it stands inside a text; U+FFFD for a part of a character."""
        texts = self._texts
        for token_id in {token_id for token_id in token_ids if token_id not in texts}:
            texts[token_id] = self._token_text(token_id)
        return [texts[token_id] for token_id in token_ids]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; only for byte-level vocabularies."""
        found = self._bytes.get(token_id)
        if found is None:
            spelled = str(self._backend.id_to_token(token_id) or "")
            found = self._bytes[token_id] = bytes_of_token(spelled)
        return found

    def special_token_id(self, text: str) -> int | None:
        """The id of the special token that is spelled exactly so."""
        token_id = self.tokenizer.convert_tokens_to_ids(text)
        return (
            int(token_id) if token_id in self.special_ids and self._spells(token_id, text) else None
        )

    def _visible_token(self) -> int:
        """Some token with a visible text, no added one if there is another. No text can be trusted
        to have tokens: vocabularies of proteins have capital letters only."""
        added = self.special_ids | self.tokenizer.added_tokens_decoder.keys()
        plain = (i for i in range(self.size) if i not in added and i not in self.byte_values)
        for token_id in chain(plain, (i for i in range(self.size) if i in added)):
            if self.has(token_id) and _is_visible(self.decode([token_id])):
                return token_id
        return self.size - 1

    def _token_text(self, token_id: int) -> str:
        if not self.has(token_id):
            return ""
        if token_id in self.byte_values:
            return bytes([self.byte_values[token_id]]).decode(errors="replace")
        return self.decode([self.anchor_id, token_id])[len(self._anchor_text) :]

    def _spells(self, token_id: int, text: str) -> bool:
        """Not so when ``text`` is unknown and the id is that of the unknown token."""
        return bool(self.tokenizer.convert_ids_to_tokens(token_id) == text)


def eos_token_ids(
    hf_config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[int, ...]:
    """All EOS token ids: of the generation config or else the config, and of the tokenizer."""
    found: dict[int, None] = {}
    stated = generation_config.get("eos_token_id")
    if stated is None:
        stated = hf_config.get("eos_token_id")
    for token_id in stated if isinstance(stated, (list, tuple)) else [stated]:
        if token_id is not None:
            found[int(token_id)] = None
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        found[int(tokenizer.eos_token_id)] = None
    return tuple(found)


def _plain_backend(tokenizer: PreTrainedTokenizerBase) -> Any:  # of `tokenizers`, not its subclass
    """The Rust tokenizer if ``tokenizer`` decodes by it alone; it is much faster. Else None."""
    from transformers import PreTrainedTokenizerFast

    if isinstance(tokenizer, PreTrainedTokenizerFast):
        changed = type(tokenizer)._decode is not PreTrainedTokenizerFast._decode
        return None if changed else tokenizer.backend_tokenizer
    return None


def _is_visible(text: str) -> bool:
    return text.strip() != "" and text.isprintable() and REPLACEMENT not in text


def _byte_values(tokenizer: PreTrainedTokenizerBase, vocab: Mapping[str, int]) -> dict[int, int]:
    """Token id to byte, for each byte with a token, if the tokenizer decodes those as bytes."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    values = {vocab[name]: byte for byte, name in enumerate(names) if name in vocab}
    is_byte = any(  # not all: decoders may remove a space at the beginning
        tokenizer.decode([token_id]) == bytes([byte]).decode(errors="replace")
        for token_id, byte in values.items()
    )
    return values if is_byte else {}
