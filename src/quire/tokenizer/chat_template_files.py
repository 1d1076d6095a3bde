"""Which chat templates a tokenizer's folder holds. Knows nothing about what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quire.tokenizer.native import read_json

_FOLDER = "additional_chat_templates"


def chat_template_in(path: Path) -> Any:
    """A Jinja text, a dict of several by name, or None. Templates in a folder of their own stand
    beside the main one, which `transformers` drops for them unless it is a file too."""
    main = _main_template(path)
    files = sorted((path / _FOLDER).glob("*.jinja"))
    if not files:
        return main
    named = main if isinstance(main, dict) else {"default": main} if main else {}
    return named | {file.stem: _text(file) for file in files}


def _main_template(path: Path) -> Any:
    file = path / "chat_template.jinja"
    if file.is_file():
        return _text(file)
    template = read_json(path / "tokenizer_config.json").get("chat_template")
    if template is None:  # the older file is the processor's, for `transformers`
        template = read_json(path / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        return {one["name"]: one["template"] for one in template}
    return template


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig")
