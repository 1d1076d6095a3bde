"""Which chat templates a tokenizer's folder holds. Knows nothing about what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quire.shown import shown
from quire.tokenizer.native import read_json

# The second is the processor's, for `transformers`, and older.
_CONFIGS = ("tokenizer_config.json", "chat_template.json")
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


def template_problem(file: Path, template: Any) -> str | None:
    """What is wrong with the ``chat_template`` in ``file``, and the remedy, or None."""
    if _is_valid(template):
        return None
    return (
        f"{file} has chat_template = {shown(template)}, which must be a Jinja text, or a list of "
        'objects with the texts "name" and "template"; correct it, or download the file again'
    )


def _main_template(path: Path) -> Any:
    file = path / "chat_template.jinja"
    if file.is_file():
        return _text(file)
    for file in (path / name for name in _CONFIGS):
        template = read_json(file).get("chat_template")
        if template is None:
            continue
        if (problem := template_problem(file, template)) is not None:
            raise ValueError(problem)
        if isinstance(template, list):
            return {one["name"]: one["template"] for one in template}
        return template
    return None


def _is_valid(template: Any) -> bool:
    """Whether it is a text, a list of named ones or a dict of them by name, or nothing."""
    texts = [template]
    if isinstance(template, dict):
        texts = list(template.values())
    elif isinstance(template, list):
        if not all(isinstance(one, dict) for one in template):
            return False
        texts = [one.get(key) for one in template for key in ("name", "template")]
    return template is None or all(isinstance(one, str) for one in texts)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig")
