"""Which fields of a body are heeded, which are harmless, and which are refused by name.

Owns the tables. The bodies in `protocol/` hold what is heeded; here is everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import BaseModel

from quire.near_names import did_you_mean
from quire.server.errors import HTTPError, bad_request, shown
from quire.server.forms import UnknownKey, unknown_keys
from quire.server.input_phase import go_on
from quire.server.protocol.common import Body

IGNORED_HEADER = "X-Quire-Ignored"
_MAX_NAMED = 10
_MAX_HEADER = 1024  # characters


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of JSON."""

    python: type
    words: str
    schema: str  # as JSON schema calls it

    def fits(self, value: Any) -> bool:
        """PHP's clients write an empty object as an empty list."""
        return value is None or isinstance(value, self.python) or (self is OBJECT and value == [])


STRING = Kind(str, "a string", "string")
BOOLEAN = Kind(bool, "true or false", "boolean")
OBJECT = Kind(dict, "an object", "object")
# They change nothing about the output.
HARMLESS = {
    **dict.fromkeys(("user", "service_tier", "safety_identifier", "session_id"), STRING),
    **dict.fromkeys(("prompt_cache_key", "prompt_cache_retention"), STRING),
    **dict.fromkeys(("mm_payload", "guided_decoding_backend"), STRING),
    **dict.fromkeys(("store", "return_mm_kwargs"), BOOLEAN),
    **dict.fromkeys(("metadata", "prompt_cache_options", "prediction"), OBJECT),
    "client_metadata": OBJECT,  # what Codex tells of itself
}
# Without them an answer has another form than was asked for, so that they are never left unheeded.
CONSTRAINTS = frozenset(
    {
        *("response_format", "structured_outputs", "guided_json", "guided_regex"),
        *("guided_choice", "guided_grammar", "guided_whitespace_pattern"),
    }
)

_MEDIA = "only text is served"
_TRANSFER = "KV blocks are not moved between servers"
# What Claude Code sends by itself: that no thought is to be cleared.
_KEEP_THOUGHTS = {"type": "clear_thinking_20251015", "keep": "all"}
# Name -> (values that ask for nothing, why not and what to do). None and empty ask for nothing too.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "functions": ((), "it is the older name of tools; use that"),
    "function_call": (("none",), "it is the older name of tool_choice; use that"),
    "reasoning": ((), "use reasoning_effort"),
    "verbosity": (("medium",), "say it in a message"),
    "prompt_embeds": ((), "embeddings as prompts are not built; pass text or token ids"),
    "modalities": ((["text"],), _MEDIA),
    "audio": ((), _MEDIA),
    "web_search_options": ((), "the server does not search; put what it shall know in a message"),
    "context_management": (
        ({"edits": []}, {"edits": [_KEEP_THOUGHTS]}),
        "the server edits no history; leave out what is not to be seen",
    ),
    "container": ((), "the server runs no code"),
    "thread": ((), "the server keeps no conversation; send all of it, without a thread"),
    "mcp_servers": ((), "the server calls no tools itself; pass them as tools"),
    "media_io_kwargs": ((), _MEDIA),
    "mm_processor_kwargs": ((), _MEDIA),
    "kv_transfer_params": ((), _TRANSFER),
    "ec_transfer_params": ((), _TRANSFER),
    "vllm_xargs": ((), "there are no plug-ins that would read it"),
    "logprob_token_ids": ((), "use logprobs, which has the most likely tokens"),
    "repetition_detection": ((), "use repetition_penalty or frequency_penalty"),
    "watermarking": ((False,), "there is no watermark"),
    "routed_experts_prompt_start": ((0,), "routed experts are not reported"),
    "return_weight_versions": ((False,), "weights do not change while the server runs"),
    "return_token_offsets": ((False,), "use /tokenize with return_token_strs"),
}

_ASK_WHEN_EMPTY = frozenset({"web_search_options", "thread", "guided_json"})
# By these Anthropic's client sends the request again, without the field.
_DETAILS = {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}


def judge(body: Body, strict: str, template: Callable[[], str] = str) -> list[str]:
    """The unknown fields of a body that are ignored, at any depth; 400 for those that may not be.

    ``strict`` is ``--strict-fields``: it is about fields nobody knows. One that is known and would
    change the output is refused in any case. ``template`` is the text of the chat template, which
    may heed more about a message than anybody else knows.
    """
    is_error = strict == "error"
    unknown = list(islice(_unknown(body, template), _MAX_NAMED if is_error else None))
    if unknown and is_error:
        named = [
            f"unknown field {shown(one.place)}{did_you_mean(one.name, one.known)}"
            for one in unknown
        ]
        raise bad_request(
            f"{'; '.join(named)} (to leave unknown fields unheeded, start the server with "
            "--strict-fields warn)",
            unknown[0].place,
        )
    return [one.place for one in unknown]


def refuse_not_built(content: dict[str, Any], model: type[BaseModel]) -> None:
    """400 for what a body asks for that is known and not built: that tells more than what else is
    wrong with it."""
    for name, value in content.items():
        if name in REFUSED and name not in model.model_fields:
            _refuse_if_set(name, value)


def _unknown(body: Body, template: Callable[[], str]) -> Iterator[UnknownKey]:
    known = (*type(body).model_fields, *HARMLESS, *REFUSED)
    for name, value in (body.model_extra or {}).items():
        go_on()
        if name in REFUSED:
            _refuse_if_set(name, value)
        elif name in HARMLESS:
            _check_kind(name, value)
        elif value is not None and (value not in ([], {}) or name in _ASK_WHEN_EMPTY):
            _refuse_constraint(name, body)
            yield UnknownKey(name, name, known)
    for name, form in body.forms.items():
        yield from unknown_keys(getattr(body, name), form, name, template)


def _refuse_constraint(name: str, body: Body) -> None:
    if name in CONSTRAINTS and body.constraints:
        raise bad_request(f"{name} is not supported here: use {body.constraints}.", name)


def _check_kind(name: str, value: Any) -> None:
    kind = HARMLESS[name]
    if not kind.fits(value):
        raise bad_request(f"{name}: must be {kind.words}, got {shown(value)}", name)


def ignored_headers(ignored: list[str], strict: str) -> dict[str, str]:
    """The header that tells a client which fields had no effect."""
    names = [name for name in ignored if name.isascii() and name.isprintable()]
    value = ",".join(names)
    if len(value) > _MAX_HEADER:
        value = value[:_MAX_HEADER].rpartition(",")[0]
    return {IGNORED_HEADER: value} if value and strict == "warn" else {}


def _refuse_if_set(name: str, value: Any) -> None:
    neutral, remedy = REFUSED[name]
    asks_nothing = value in ([], {}, "") and name not in _ASK_WHEN_EMPTY
    if value is None or asks_nothing or value in neutral:
        return
    message = f"{name} is not supported, got {shown(value)}: {remedy}."
    raise HTTPError(400, message, param=name, details=_DETAILS.get(name))
