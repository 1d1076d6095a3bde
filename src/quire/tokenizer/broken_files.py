"""Which file of a tokenizer's folder cannot be what its name says. Knows nothing of tokenizers."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path

from quire.tokenizer.chat_template_files import template_problem
from quire.weights.lfs_pointer import pointer_problem

_OBJECTS = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.json", "tokenizer.json"),
)
_TEMPLATES = ("*.jinja", "additional_chat_templates/*.jinja")
_VOCABULARIES = ("*.model", "*.tiktoken", "tekken*.json", "vocab*", "merges.txt")


def broken_file(path: Path) -> str | None:
    """A file that is broken, what is wrong with it and the remedy, or None. Vocabularies beside a
    ``tokenizer.json`` do not count: nobody reads them."""
    objects = [path / name for name in _OBJECTS if (path / name).is_file()]
    templates = list(_matching(path, _TEMPLATES))
    has_json = (path / "tokenizer.json").is_file()
    vocabularies = [] if has_json else list(_matching(path, _VOCABULARIES))
    problems = (
        *map(pointer_problem, (*objects, *templates, *vocabularies)),
        *map(_object_problem, objects),
        *map(_text_problem, templates),
        *map(_size_problem, vocabularies),
        *map(_mark_problem, objects),
    )
    return next(filter(None, problems), None)


def _matching(path: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (file for file in sorted(path.glob(pattern)) if file.is_file())


def _object_problem(file: Path) -> str | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        return f"{file} is not valid JSON ({error}); download the file again"
    if isinstance(value, dict):
        return template_problem(file, value.get("chat_template"))
    key = ' with the key "chat_template"' if file.name == "chat_template.json" else ""
    return f"{file} holds no JSON object{key}; download the file again"


def _text_problem(file: Path) -> str | None:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return f"{file} is not UTF-8 text ({error}); save it as UTF-8, or download the file again"
    return None


def _size_problem(file: Path) -> str | None:
    return None if file.stat().st_size > 0 else f"{file} is empty; download the file again"


def _mark_problem(file: Path) -> str | None:
    """Named last: Quire's own readers skip the mark."""
    if not file.read_bytes().startswith(BOM_UTF8):
        return None
    return (
        f"{file} begins with a byte order mark, which transformers does not read; save it as "
        "UTF-8 without that mark"
    )
