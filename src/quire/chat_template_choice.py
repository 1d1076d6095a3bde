"""Which chat template a user means: a file, Jinja text, or a name: the model's, or one of ours.

Knows nothing about messages, nor what a model gets for which nobody names one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quire.chat_templates import chat_template_names, named_chat_template
from quire.near_names import did_you_mean
from quire.shown import shown
from quire.template_format import template_fault

_MAX_SHOWN = 300  # characters of a template or path in a message
# Of one of several templates of a tokenizer; with such an ending it is a file that is missing.
_NAME = re.compile(r"(?!.*\.(?i:jinja2?|j2|tmpl|html?|txt|json)$)[\w-]+(\.[\w-]+)*")


def load_chat_template(value: str | Path | None, *, is_typed: bool = True) -> str | None:
    """The template that a user named: the text of a file, or Jinja text. A name is returned as it
    is, for `named`, which gets the tokenizer's templates too.

    ``is_typed`` is whether it was typed into a shell, which passes ``\\n`` as two characters.
    ``ValueError`` for one that does not parse.
    """
    if value is None:
        return None
    template = _read_template(value, is_typed)
    if (fault := template_fault(template)) is not None:
        raise ValueError(
            f"the chat template {shown(str(value), _MAX_SHOWN)} does not parse: {fault}; correct "
            "it, or leave it out to use the model's own"
        )
    return template


def check_name(template: str | None, of_tokenizer: Callable[[], Any]) -> None:
    """``ValueError`` for a name that no template has. ``of_tokenizer``, which returns what `named`
    takes, is called only for one that is not ours."""
    is_ours = template in chat_template_names()
    if template is not None and not is_ours and _NAME.fullmatch(template):
        named(template, of_tokenizer())


def _read_template(value: str | Path, is_typed: bool) -> str:
    text = str(value)
    is_jinja = any(mark in text for mark in ("{{", "{%", "{#"))
    if isinstance(value, Path) or not is_jinja:
        try:
            return Path(text).expanduser().read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the chat template {shown(text, _MAX_SHOWN)} is not UTF-8: {error}; save it as "
                "UTF-8"
            ) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError) and _NAME.fullmatch(text):
                return text  # perhaps one of the model's, which are not known yet
            names = chat_template_names()
            meant = Path(text).stem.removeprefix("template_")  # as vLLM's examples are called
            hint = f"the name {meant}, " if meant in names else ""
            raise ValueError(
                f"the chat template {shown(text, _MAX_SHOWN)} is neither a readable file "
                f"({error.strerror}) nor a Jinja template; give {hint}the path of a .jinja file, "
                f"or one of the names {', '.join(names)}"
            ) from error
    if is_typed and "\n" not in text:
        return text.replace("\\n", "\n").replace("\\t", "\t")
    return text


def named(template: str | None, of_tokenizer: Any) -> str | None:
    """The template itself, or the one of this name, of the tokenizer or of ours.

    ``of_tokenizer``: its ``chat_template``, which is a dict if it has several.
    """
    if template is None or not _NAME.fullmatch(template):
        return template
    own = of_tokenizer if isinstance(of_tokenizer, dict) else {}
    if template in own:
        return str(own[template])
    names = chat_template_names()
    if template in names:
        return named_chat_template(template)
    known = [*own, *names]
    raise ValueError(
        f"there is no chat template {shown(template, _MAX_SHOWN)}{did_you_mean(template, known)}; "
        "give the path of a .jinja file, a Jinja template, or one of the names "
        f"{', '.join(known)}"
    )
