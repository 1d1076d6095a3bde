"""Tokenizers built from sentencepiece and tiktoken vocabularies, for known tokenizer classes.

Reads the files beside the vocabulary: special tokens, BOS. Runs no code from the folder. The result
is an ordinary fast tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.tokenizer.families import (
    CHATGLM2,
    CLASS_OF_MODEL_TYPE,
    JSON_CLASSES,
    OLD_CLASS_NAMES,
    SENTENCEPIECE_FAMILIES,
    TIKTOKEN_FAMILIES,
    SentencePieceFamily,
    TiktokenFamily,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_SENTENCEPIECE_FILE = "tokenizer.model"
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_PASSED_ON = ("model_max_length", "padding_side", "truncation_side")
_FURTHER_TOKENS = ("additional_special_tokens", "extra_special_tokens")
_MATCHING = ("single_word", "lstrip", "rstrip", "normalized")  # options of an added token
_CODE_HAS_NAMES_OF = ("glm2", "codegeex2")  # models of the older of two codes that share a class


@dataclass(frozen=True, kw_only=True, slots=True)
class _Folder:
    """A tokenizer's folder and its small files."""

    path: Path
    config: Mapping[str, Any]  # tokenizer_config.json, over special_tokens_map.json
    hf_config: Mapping[str, Any]  # config.json, if it lies there too
    added: Mapping[int, Mapping[str, Any]]  # token id -> an added token

    @property
    def tokenizer_class(self) -> str:
        model_type = str(self.hf_config.get("model_type"))
        named = class_name(self.config, self.hf_config)
        return str(named or CLASS_OF_MODEL_TYPE.get(model_type))

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()


def load_native(path: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder, or None if this module cannot read it."""
    folder = _read_folder(path)
    name = folder.tokenizer_class
    if folder.has("tokenizer.json"):
        return _from_json(folder) if name in JSON_CLASSES and _names_code(folder) else None
    tiktoken = TIKTOKEN_FAMILIES.get(name)
    if tiktoken is not None and folder.has(tiktoken.file):
        return _from_tiktoken(folder, tiktoken)
    sentencepiece = SENTENCEPIECE_FAMILIES.get(name)
    if sentencepiece is not None and folder.has(_SENTENCEPIECE_FILE):
        return _from_sentencepiece(folder, _variant(folder, sentencepiece))
    return None


def _from_json(folder: _Folder) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    options = tokens_given_as_objects(folder.path)
    return PreTrainedTokenizerFast.from_pretrained(
        str(folder.path), local_files_only=True, **options
    )


def _from_tiktoken(folder: _Folder, family: TiktokenFamily) -> PreTrainedTokenizerBase:
    from quire.tokenizer.tiktoken_backend import read_ranks, tiktoken_backend

    ranks = read_ranks(folder.path / family.file)
    special = _special_ids(max(ranks.values()) + 1, family)
    special |= {str(token["content"]): i for i, token in folder.added.items()}
    backend = tiktoken_backend(ranks, special, pattern=family.pattern, nfc=family.nfc)
    tokenizer = _fast(
        folder,
        backend,
        {"eos_token": family.eos, "pad_token": family.eos},
        prefix=family.prefix,
    )
    for attribute, text in family.named_ids.items():
        setattr(tokenizer, attribute, special[text])
    return tokenizer


def _special_ids(end: int, family: TiktokenFamily) -> dict[str, int]:
    """Special token -> id; ``end`` is the id after the vocabulary. A published vocabulary may leave
    one id unused before the special tokens; in one of another size they follow directly."""
    first = family.first_special_id if family.first_special_id - end in (0, 1) else end
    unused = {f"<|unnamed_{i}|>": i for i in range(end, first)}
    return unused | {text: first + i for i, text in enumerate(family.special)}


def _from_sentencepiece(folder: _Folder, family: SentencePieceFamily) -> PreTrainedTokenizerBase:
    from quire.tokenizer.sentencepiece_backend import sentencepiece_backend
    from quire.tokenizer.sentencepiece_file import PieceKind, read_sentencepiece

    file = read_sentencepiece(folder.path / _SENTENCEPIECE_FILE)
    num_pieces = len(file.pieces)
    renamed = {i: str(token["content"]) for i, token in folder.added.items() if i < num_pieces}
    marks = {i: file.pieces[i].text for i in family.special_ids if i < num_pieces}
    # Llama's later class puts the space before the whole text only.
    backend = sentencepiece_backend(
        file, marks | renamed, prefix_each_part=folder.config.get("legacy") is not False
    )
    of_kind = {
        kind: [renamed.get(i, one.text) for i, one in enumerate(file.pieces) if one.kind is kind]
        for kind in (PieceKind.UNKNOWN, PieceKind.CONTROL)
    }
    controls = of_kind[PieceKind.CONTROL]
    _add_special(backend, [*of_kind[PieceKind.UNKNOWN], *controls, *marks.values()])
    _add_special(backend, family.appended)
    _add_tokens(backend, folder)
    named = {"bos_token": file.bos, "eos_token": file.eos, "pad_token": file.pad}
    named = {name: text for name, text in named.items() if text in controls}
    named["unk_token"] = of_kind[PieceKind.UNKNOWN][0]
    if family.unk_is_pad:
        named["pad_token"] = named["unk_token"]
    return _fast(folder, backend, named, prefix=family.prefix, add_bos=family.add_bos)


def _fast(
    folder: _Folder,
    backend: Tokenizer,
    named: Mapping[str, str],
    *,
    prefix: Sequence[str] = (),
    add_bos: bool = False,
) -> PreTrainedTokenizerBase:
    """A `PreTrainedTokenizerFast` with this backend; the folder's files override ``named``."""
    from transformers import PreTrainedTokenizerFast

    options: dict[str, Any] = dict(named)
    texts = {name: _text_of(folder.config.get(name) or "") for name in _NAMED_TOKENS}
    options |= {name: text for name, text in texts.items() if text}
    options |= {name: folder.config[name] for name in _PASSED_ON if name in folder.config}
    if prefix:
        backend.post_processor = _template(backend, prefix)
    else:
        options["add_bos_token"] = bool(folder.config.get("add_bos_token", add_bos))
        options["add_eos_token"] = bool(folder.config.get("add_eos_token", False))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        name_or_path=str(folder.path),
        **options,
    )


def _template(backend: Tokenizer, prefix: Sequence[str]) -> Any:
    from tokenizers import processors

    ids = [(text, backend.token_to_id(text)) for text in prefix]
    return processors.TemplateProcessing(
        single=[*prefix, "$A"], pair=[*prefix, "$A", "$B"], special_tokens=ids
    )


def _add_special(backend: Tokenizer, texts: Sequence[str]) -> None:
    """Add special tokens in order, with their existing or the next id; words match whole words
    only."""
    from tokenizers import AddedToken

    backend.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False, single_word=text.isalpha())
            for text in texts
        ]
    )


def _add_tokens(backend: Tokenizer, folder: _Folder) -> None:
    """Add the tokens of the folder's files; unnamed ids get fillers, since ids are given in
    order."""
    from tokenizers import AddedToken

    for i, token in sorted(folder.added.items()):
        while backend.get_vocab_size(with_added_tokens=True) < i:
            filler = f"<|unnamed_{backend.get_vocab_size(with_added_tokens=True)}|>"
            backend.add_special_tokens([AddedToken(filler, special=True, normalized=False)])
        special = bool(token.get("special", True))
        added = AddedToken(
            str(token["content"]),
            special=special,
            normalized=False,
            single_word=bool(token.get("single_word", False)),
            lstrip=bool(token.get("lstrip", False)),
            rstrip=bool(token.get("rstrip", False)),
        )
        (backend.add_special_tokens if special else backend.add_tokens)([added])


def _variant(folder: _Folder, family: SentencePieceFamily) -> SentencePieceFamily:
    if folder.tokenizer_class != "ChatGLMTokenizer":
        return family
    names = (
        folder.config.get("name_or_path"),
        folder.hf_config.get("_name_or_path"),
        folder.path.name,
    )
    text = " ".join(str(name) for name in names).lower()
    return CHATGLM2 if any(name in text for name in _CODE_HAS_NAMES_OF) else family


def _names_code(folder: _Folder) -> bool:
    return "auto_map" in folder.config or "AutoTokenizer" in folder.hf_config.get("auto_map", {})


def _read_folder(path: Path) -> _Folder:
    config = {
        **read_json(path / "special_tokens_map.json"),
        **read_json(path / "tokenizer_config.json"),
    }
    added: dict[int, Mapping[str, Any]] = {
        int(i): {"content": text} for text, i in read_json(path / "added_tokens.json").items()
    }
    added |= {int(i): token for i, token in config.get("added_tokens_decoder", {}).items()}
    return _Folder(path=path, config=config, hf_config=read_json(path / "config.json"), added=added)


def class_name(config: Mapping[str, Any], hf_config: Mapping[str, Any]) -> str | None:
    """The current name of the class in tokenizer_config.json, or else in config.json."""
    name = config.get("tokenizer_class") or hf_config.get("tokenizer_class")
    return OLD_CLASS_NAMES.get(name, name) if name else None


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``; empty if there is no file."""
    return dict(json.loads(file.read_text(encoding="utf-8-sig"))) if file.is_file() else {}


def tokens_given_as_objects(path: Path) -> dict[str, Any]:
    """The folder's lists and dicts of further special tokens that hold objects, as options of
    `transformers`, which refuses to read such from the files."""
    named = read_json(path / "tokenizer_config.json")
    if "added_tokens_decoder" not in named:  # else nobody reads the older file
        named = read_json(path / "special_tokens_map.json") | named
    options: dict[str, Any] = {}
    for key in _FURTHER_TOKENS:
        given = named.get(key)
        if isinstance(given, list) and any(isinstance(one, Mapping) for one in given):
            options[key] = [_added_token(one) for one in given]
        elif isinstance(given, dict) and any(isinstance(one, Mapping) for one in given.values()):
            options[key] = {name: _added_token(one) for name, one in given.items()}
    return options


def _added_token(token: Any) -> Any:
    """The token for `transformers`; an object becomes an ``AddedToken``, a text remains one."""
    from tokenizers import AddedToken

    if not isinstance(token, Mapping):
        return token
    matching = {name: bool(token[name]) for name in _MATCHING if name in token}
    return AddedToken(str(token["content"]), special=True, **matching)


def _text_of(token: Any) -> str:
    """The text of a named token, given as a string or as an object with matching options."""
    return str(token["content"]) if isinstance(token, Mapping) else str(token)
