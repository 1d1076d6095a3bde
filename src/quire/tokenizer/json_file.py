"""A folder with a `tokenizer.json`: read unchanged, as an instance of the class the folder names.

Many classes of `transformers` take only the vocabulary from the file, and split texts and add BOS
by rules of their own. Here the class only supplies what the files lack: default special tokens, the
padding side, methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.tokenizer.families import ADDS_BOS_UNASKED
from quire.tokenizer.native import class_name, read_json, tokens_given_as_objects

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKS = ("add_bos_token", "add_eos_token")
_NAMING_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "PreTrainedTokenizer")


def load_json_file(path: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder, or None if this module cannot read it."""
    if not (path / "tokenizer.json").is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    config, hf_config = read_json(path / "tokenizer_config.json"), read_json(path / "config.json")
    name = class_name(config, hf_config)
    if name is None:
        base = _usual_class(str(hf_config.get("model_type")))
    else:
        base = PreTrainedTokenizerFast if name in _PLAIN_CLASSES else _named_class(name)
    if _names_code(config) and (trust_remote_code or base is None):
        return None
    base = base or PreTrainedTokenizerFast
    if not issubclass(base, PreTrainedTokenizerFast):
        return None  # the class reads other files
    marks = _marks(base, config)
    reader = _reader(base, keeps_marks=not marks)
    options: dict[str, Any] = {**marks, **_instead_of_empty(base, path, config)}
    options |= tokens_given_as_objects(path)
    tokenizer = reader.from_pretrained(str(path), local_files_only=True, **options)
    tokenizer.__class__ = base  # unpickling finds that class by its name
    invented = _tokens_of_class_only(tokenizer, path)
    if invented:
        _remove(tokenizer, invented, path / "tokenizer.json")
        if marks:
            tokenizer.update_post_processor()
    return tokenizer


def _named_class(name: str) -> type[Any] | None:
    import transformers

    found = getattr(transformers, name, None)  # imports the one module of the class
    if found is None:  # also finds what plug-ins registered, but importing it takes seconds
        from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

        found = tokenizer_class_from_name(name)
    return found


def _usual_class(model_type: str) -> type[Any] | None:
    """The tokenizer class of that model type, if it reads a `tokenizer.json`."""
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    name = TOKENIZER_MAPPING_NAMES.get(model_type)
    found = _named_class(name) if name else None
    return found if found and issubclass(found, PreTrainedTokenizerFast) else None


def _names_code(config: Mapping[str, Any]) -> bool:
    auto_map = config.get("auto_map")
    return "AutoTokenizer" in auto_map if isinstance(auto_map, dict) else bool(auto_map)


def _marks(base: type[Any], config: Mapping[str, Any]) -> dict[str, bool]:
    """``add_bos_token`` and ``add_eos_token`` for classes that follow the config, if it sets
    them."""
    adds_bos = ADDS_BOS_UNASKED.get(base.__name__)
    said = {name: bool(config[name]) for name in _MARKS if config.get(name) is not None}
    if adds_bos is None or not said:
        return {}
    return {"add_bos_token": adds_bos, "add_eos_token": False} | said


def _instead_of_empty(
    base: type[Any], path: Path, config: Mapping[str, Any]
) -> dict[str, str | None]:
    """The class's defaults for the special tokens that the folder sets to an empty text."""
    named = {**read_json(path / "special_tokens_map.json"), **config}
    empty = [
        name
        for name, token in named.items()
        if name.endswith("_token")
        and (token.get("content") if isinstance(token, Mapping) else token) == ""
    ]
    parameters = inspect.signature(base.__init__).parameters.values()
    defaults = {one.name: one.default for one in parameters if isinstance(one.default, str)}
    return {name: defaults.get(name) for name in empty}


def _reader(base: type[Any], *, keeps_marks: bool) -> type[Any]:
    """``base`` with the file's backend and, if ``keeps_marks``, the file's rules for BOS and
    EOS."""

    class Reader(base):
        @classmethod
        def convert_to_native_format(cls, **options: Any) -> dict[str, Any]:
            return options  # other classes rebuild the backend from the vocabulary here

        def update_post_processor(self) -> None:
            if not keeps_marks:
                super().update_post_processor()

    return Reader


def _tokens_of_class_only(tokenizer: PreTrainedTokenizerBase, path: Path) -> set[str]:
    """Special tokens that appear in no file of the folder."""
    model = tokenizer.backend_tokenizer.model
    special = {*tokenizer.special_tokens_map.values(), *tokenizer.extra_special_tokens}
    added = {text for text in special if model.token_to_id(text) is None}
    for name in _NAMING_FILES:
        added -= set(_strings(read_json(path / name)))
    if added:  # only then: the file is large
        added -= set(_strings(read_json(path / "tokenizer.json").get("added_tokens")))
    return added


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, including keys, since some files have tokens as keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _remove(tokenizer: PreTrainedTokenizerBase, texts: set[str], file: Path) -> None:
    """Remove added tokens whose ids, after the file's vocabulary, the model does not have."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(file))
    added = sorted(tokenizer.added_tokens_decoder.items())
    backend.add_tokens([token for _, token in added if token.content not in texts])
    backend.encode_special_tokens = tokenizer.split_special_tokens
    tokenizer._tokenizer = backend
    for name, text in tokenizer.special_tokens_map.items():
        if text in texts:
            setattr(tokenizer, name, None)
            tokenizer.init_kwargs[name] = None  # what save_pretrained writes
    kept = [text for text in tokenizer.extra_special_tokens if text not in texts]
    tokenizer.extra_special_tokens = kept
