"""A folder with a `tokenizer.json`: read as it stands, behind the class that the folder names.

Many classes of `transformers` take only the vocabulary from the file, and split texts and add BOS
by rules of their own. Here a class gives what the file does not hold: names of special tokens where
`tokenizer_config.json` has none, the side of padding, methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.tokenizer.families import ADDS_BOS_UNASKED
from quire.tokenizer.native import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKS = ("add_bos_token", "add_eos_token")
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "PreTrainedTokenizer")


def load_json_file(path: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder, or None when others must read it."""
    if not (path / "tokenizer.json").is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    config, hf_config = read_json(path / "tokenizer_config.json"), read_json(path / "config.json")
    name = config.get("tokenizer_class") or hf_config.get("tokenizer_class")
    if name is None:
        base = _usual_class(str(hf_config.get("model_type")))
    else:
        base = PreTrainedTokenizerFast if name in _PLAIN_CLASSES else _named_class(name)
    if _names_code(config) and (trust_remote_code or base is None):
        return None
    base = base or PreTrainedTokenizerFast
    if not issubclass(base, PreTrainedTokenizerFast):
        return None  # it reads other files
    marks = _marks(base, config)
    reader = _reader(base, keeps_marks=not marks)
    tokenizer = reader.from_pretrained(str(path), local_files_only=True, **marks)
    tokenizer.__class__ = base  # which unpickling finds by its name
    return tokenizer


def _named_class(name: str) -> type[Any] | None:
    import transformers

    found = getattr(transformers, name, None)  # imports the one module of the class
    if found is None:  # the table has what plug-ins registered too; to import it takes seconds
        from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

        found = tokenizer_class_from_name(name)
    return found


def _usual_class(model_type: str) -> type[Any] | None:
    """Of models of that type, if it is one that reads a `tokenizer.json`."""
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    name = TOKENIZER_MAPPING_NAMES.get(model_type)
    found = _named_class(name) if name else None
    return found if found and issubclass(found, PreTrainedTokenizerFast) else None


def _names_code(config: Mapping[str, Any]) -> bool:
    auto_map = config.get("auto_map")
    return "AutoTokenizer" in auto_map if isinstance(auto_map, dict) else bool(auto_map)


def _marks(base: type[Any], config: Mapping[str, Any]) -> dict[str, bool]:
    """Whether BOS and EOS are added, where the class goes by the config and the config says it."""
    adds_bos = ADDS_BOS_UNASKED.get(base.__name__)
    said = {name: bool(config[name]) for name in _MARKS if config.get(name) is not None}
    if adds_bos is None or not said:
        return {}
    return {"add_bos_token": adds_bos, "add_eos_token": False} | said


def _reader(base: type[Any], *, keeps_marks: bool) -> type[Any]:
    """``base``, but with the backend of the file and, if ``keeps_marks``, its BOS and EOS."""

    class Reader(base):
        @classmethod
        def convert_to_native_format(cls, **options: Any) -> dict[str, Any]:
            return options  # in which others replace the file by its vocabulary

        def update_post_processor(self) -> None:
            if not keeps_marks:
                super().update_post_processor()

    return Reader
