"""Loads the tokenizer of a local folder, by Quire's own readers where they can, else
`transformers`.

Gives it the folder's chat templates. Owns the messages about missing and broken files. Knows
nothing about hubs: the folder is local.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.errors import ModelLoadError
from quire.tokenizer.broken_files import broken_file
from quire.tokenizer.sentencepiece_file import UnreadVocabularyError, read_sentencepiece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

TOKENIZER_MODES = ("auto", "hf", "fast", "slow", "mistral")
_NATIVE_MODES = ("auto", "fast", "slow")
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_VOCABULARY_PATTERNS = ("*.model", "*.tiktoken", "tekken*.json", "vocab*")
_SENTENCEPIECE_FILE = "tokenizer.model"
# What `transformers` reads older formats with; the extra "tokenizers" brings all.
_PACKAGES = {
    "sentencepiece": "sentencepiece",
    "tiktoken": "tiktoken",
    "google.protobuf": "protobuf",
}


class _UnknownClassError(ValueError):
    """The folder has a vocabulary, but its tokenizer class is unknown."""


def load_tokenizer(
    path: Path | str, *, mode: str = "auto", trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder ``path``; ``ModelLoadError`` says what is wrong with it."""
    path = Path(path)
    if mode not in TOKENIZER_MODES:
        known = ", ".join(TOKENIZER_MODES)
        raise ValueError(f"tokenizer_mode must be one of {known}, got {mode!r}")
    if not path.is_dir():
        raise ModelLoadError(f"the tokenizer folder {path} does not exist; check tokenizer=")
    if not _has_vocabulary(path) and not (path / "tokenizer_config.json").is_file():
        raise ModelLoadError(_no_tokenizer(path))
    try:
        tokenizer = _native(path) if mode in _NATIVE_MODES else None
        if tokenizer is None:
            tokenizer = _of_transformers(path, mode, trust_remote_code)
        _give_chat_template(tokenizer, path)
    except Exception as error:  # the code of a checkpoint may raise anything
        raise ModelLoadError(_why_not_loaded(path, trust_remote_code, error)) from error
    _check_files(tokenizer, path)
    _check_mode(tokenizer, mode, path)
    return tokenizer


def _native(path: Path) -> PreTrainedTokenizerBase | None:
    from quire.tokenizer.native import load_native

    return load_native(path)


def _of_transformers(path: Path, mode: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    if mode != "mistral":
        from quire.tokenizer.json_file import load_json_file

        tokenizer = load_json_file(path, trust_remote_code)
        if tokenizer is not None:
            return tokenizer
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"mistral_format": True} if mode == "mistral" else {}
    tokenizer = AutoTokenizer.from_pretrained(
        str(path), trust_remote_code=trust_remote_code, local_files_only=True, **options
    )
    if mode in _NATIVE_MODES:
        _check_class(tokenizer, path)
    return tokenizer


def _give_chat_template(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    from quire.tokenizer.chat_template_files import chat_template_in

    if type(tokenizer).__name__.startswith("MistralCommon"):
        return  # it renders messages without templates
    template = chat_template_in(path)
    if template is not None:  # else the code of a checkpoint may have one
        tokenizer.chat_template = template


def _check_class(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """_UnknownClassError for a sentencepiece vocabulary without a known class: `transformers` would
    read only its pieces, without BOS or the space before a text."""
    from transformers import PreTrainedTokenizerFast

    has_no_class = type(tokenizer) is PreTrainedTokenizerFast
    if has_no_class and _is_sentencepiece(path / _SENTENCEPIECE_FILE):
        raise _UnknownClassError(
            f"{path / _SENTENCEPIECE_FILE} is a sentencepiece vocabulary, and how prompts begin is "
            f"not known for {_class_in_words(path)}"
        )


def _is_sentencepiece(file: Path) -> bool:
    """Whether the file is a sentencepiece vocabulary; a tiktoken one may have the same name."""
    if not file.is_file():
        return False
    try:
        read_sentencepiece(file)
    except UnreadVocabularyError:
        return True
    except ValueError:
        return False
    return True


def _class_in_words(path: Path) -> str:
    from quire.tokenizer.native import class_name, read_json

    hf_config = read_json(path / "config.json")
    name = class_name(read_json(path / "tokenizer_config.json"), hf_config)
    if name is not None:
        return f"its tokenizer_class, {name!r}"
    return f"its model_type, {hf_config.get('model_type')!r} (no tokenizer_class is named)"


def _check_files(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """ModelLoadError if there is no vocabulary: `transformers` would load special tokens only."""
    files = tokenizer.vocab_files_names.values()  # empty for byte-based classes
    is_own_class = type(tokenizer).__module__.startswith("transformers.")
    has_file = _has_vocabulary(path) or any((path / file).is_file() for file in files)
    if is_own_class and files and not has_file:
        raise ModelLoadError(_no_tokenizer(path))


def _check_mode(tokenizer: PreTrainedTokenizerBase, mode: str, path: Path) -> None:
    if mode == "fast" and not tokenizer.is_fast:
        raise ModelLoadError(
            f"tokenizer_mode='fast', but {path} has only a slow tokenizer "
            f"({type(tokenizer).__name__}); use tokenizer_mode='auto'"
        )
    if mode == "slow" and tokenizer.is_fast:
        logger.warning(
            "tokenizer_mode='slow': there is no slow form of %s, the fast one is used; it gives "
            "the same tokens",
            type(tokenizer).__name__,
        )


def _why_not_loaded(path: Path, trust_remote_code: bool, error: Exception) -> str:
    """One message with file and remedy; checks the most certain causes first."""
    problem = broken_file(path)
    if problem is not None:
        return problem
    if isinstance(error, UnreadVocabularyError):
        return f"{error}; tokenizer_mode='hf' lets transformers try"
    if not trust_remote_code and _needs_remote_code(path):
        return (
            f"the tokenizer in {path} is Python code that comes with the checkpoint; if you trust "
            "that code, pass trust_remote_code=True (--trust-remote-code)"
        )
    if isinstance(error, _UnknownClassError):
        return (
            f'{error}; if they begin as Llama\'s, write "tokenizer_class": "LlamaTokenizer" into '
            f"{path / 'tokenizer_config.json'}; else pass tokenizer= with a folder that has a "
            "tokenizer.json"
        )
    if not _has_vocabulary(path):
        return _no_tokenizer(path)
    return (
        f"the tokenizer in {path} cannot be loaded: {type(error).__name__}: "
        f"{' '.join(str(error).split())[:500]}; {_remedy(path, error)}"
    )


def _remedy(path: Path, error: Exception) -> str:
    if isinstance(error, ImportError) and "pip install" in str(error):
        return "install that, or pass tokenizer= with a folder that has a tokenizer.json"
    missing = [name for module, name in _PACKAGES.items() if not _is_installed(module)]
    if missing and not (path / "tokenizer.json").is_file():
        return (
            f"formats other than tokenizer.json may need packages that are not installed "
            f"({', '.join(missing)}): pip install 'quire[tokenizers]'"
        )
    return "download its files again, or pass tokenizer= with a folder that has another"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent is
        return False


def _has_vocabulary(path: Path) -> bool:
    return any(any(path.glob(pattern)) for pattern in (*_VOCABULARY_FILES, *_VOCABULARY_PATTERNS))


def _no_tokenizer(path: Path) -> str:
    return (
        f"{path} has no tokenizer: none of {', '.join(_VOCABULARY_FILES)} is there; pass "
        "tokenizer= (--tokenizer) with a folder or model that has one, or skip_tokenizer_init=True "
        "(--skip-tokenizer-init)"
    )


def _needs_remote_code(path: Path) -> bool:
    """Whether a config names code for the tokenizer; some do so in config.json only."""
    from quire.tokenizer.native import read_json

    named = read_json(path / "config.json") | read_json(path / "tokenizer_config.json")
    return "auto_map" in named and "AutoTokenizer" in named["auto_map"]
