"""Write the tables of docs/coming_from_vllm.md from the tables in the code.

python tools/compat_docs.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quire import compat, env, sampling_limits
from quire.args import EngineArgs
from quire.as_vllm.names import MODULES
from quire.compat import Verdict
from quire.engine.async_engine import AsyncLLM
from quire.engine.llm_engine import LLMEngine
from quire.llm import LLM
from quire.not_built import NOT_BUILT
from quire.sampling_params import SamplingParams
from quire.server import fields, other_flags
from quire.server.args import ServerArgs
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.completions import CompletionRequest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "coming_from_vllm.md"
MARK = "<!-- From here on written by tools/compat_docs.py -->"


def written(text: str) -> str:
    """``text``, the page, with its tables replaced by those of the code."""
    prose, mark, _ = text.partition(MARK)
    if not mark:
        raise ValueError(f"the page needs the line {MARK}")
    return "\n".join([prose + MARK, *_tables()]) + "\n"


def _tables() -> list[str]:
    return [
        *_section("Imports", _imports()),
        *_section("Arguments of engines and flags of `quire serve`", _arguments()),
        *_section("Sampling parameters", _sampling()),
        *_section("Methods of `LLM`, `LLMEngine` and `AsyncLLM`", _methods()),
        *_section("Fields of HTTP requests", _fields()),
        *_section("Environment variables", _variables()),
        *_section("Attention backends", _attention()),
    ]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return ["", f"## {title}", "", *lines]


def _imports() -> list[str]:
    rows = []
    for module, known in sorted(MODULES.items()):
        kept = _names(known.names)
        if known.same_as:
            kept = "the variables below"
        if known.runs is not None:
            command = " ".join(["quire", *known.runs])
            kept = "; ".join(one for one in (kept, f"`python -m` of it is `{command}`") if one)
        if kept or known.not_built:
            rows.append((f"`{module}`", kept, _names(known.not_built)))
    return _table(("module", "kept", "can be imported, not used"), rows)


def _arguments() -> list[str]:
    same = [item.name for cls in (EngineArgs, ServerArgs) for item in dataclasses.fields(cls)]
    verdicts = {**compat.VERDICTS, **other_flags.VERDICTS}
    lines = [
        "As `EngineArgs(max_model_len=...)` or `--max-model-len`, dashes or underscores.",
        "",
        f"**There are:** {_names(same)}.",
        "",
    ]
    return [*lines, *_verdicts({name: one for name, one in verdicts.items() if name not in same})]


def _verdicts(verdicts: Mapping[str, Verdict]) -> list[str]:
    order = ("alias", "noted", "refused")
    rows = [
        (f"`{name}`", one.kind, one.message + _refused_keys(one))
        for kind in order
        for name, one in sorted(verdicts.items())
        if one.kind == kind
    ]
    return _table(("name", "is", "why, or what to use"), rows)


def _refused_keys(verdict: Verdict) -> str:
    return f"; refused: {_names(verdict.refused_keys)}" if verdict.refused_keys else ""


def _sampling() -> list[str]:
    names = [item.name for item in dataclasses.fields(SamplingParams)]
    kept = [name for name in names if name not in sampling_limits.NOT_BUILT]
    rows = [(f"`{name}`", "refused", why) for name, why in sampling_limits.NOT_BUILT.items()]
    table = _table(("name", "is", "why, or what to use"), rows)
    return [f"**There are:** {_names(kept)}.", "", *table]


def _methods() -> list[str]:
    rows = [(_names(names), "refused", why) for why, names in NOT_BUILT.items()]
    lines = []
    for owner in (LLM, LLMEngine, AsyncLLM):
        kept = [name for name in vars(owner) if not name.startswith("_")]
        lines += [f"**`{owner.__name__}` has:** {_names(kept)}.", ""]
    return [*lines, *_table(("name", "is", "why"), rows)]


def _fields() -> list[str]:
    bodies = (CompletionRequest, ChatCompletionRequest)
    heeded = {name for body in bodies for name in body.model_fields}
    rows = [(f"`{name}`", "refused", why) for name, (_, why) in sorted(fields.REFUSED.items())]
    return [
        f"**Heeded** by completions or chat completions: {_names(sorted(heeded))}.",
        "",
        f"**Without effect**, and harmless: {_names(sorted(fields.HARMLESS))}.",
        "",
        *_table(("name", "is", "why, or what to use"), rows),
        "",
        "A field that nobody knows is a 400, unless the server runs with `--strict-fields warn`.",
    ]


def _variables() -> list[str]:
    rows = [
        (f"`{one.names[0]}`", _names(one.names[1:]), _default(one), one.help)
        for one in env.REGISTRY
    ]
    others = [(f"`{name}`", what) for name, what in env.OF_OTHERS.items()]
    noted = [(f"`{name}`", "noted", why) for name, (_, why) in env.WITHOUT_EFFECT.items()]
    return [
        *_table(("name", "or", "default", "what it sets"), rows),
        "",
        *_table(("name", "of other programs: what it sets here"), others),
        "",
        *_table(("name", "is", "why"), noted),
    ]


def _default(variable: env.Variable[Any]) -> str:
    value = variable.default
    if value in (None, ""):
        return ""
    return f"`{value:g}`" if isinstance(value, (bool, float)) else f"`{value}`"


def _attention() -> list[str]:
    rows = [(f"`{name}`", "alias", f"`{ours}`") for name, ours in compat._VLLM_ATTENTION.items()]
    rows += [
        (f"`{name}`", "refused", f"closest: `{ours}`")
        for name, ours in compat._NO_SUCH_ATTENTION.items()
    ]
    return _table(("name", "is", ""), rows)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
