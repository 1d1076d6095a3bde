"""Which fields of a body are accepted without an effect, and which are refused by name.

Owns the tables of those. Fields that have an effect are declared by the bodies in `protocol/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from quire.near_names import did_you_mean
from quire.sampling_limits import NOT_BUILT
from quire.server.errors import HTTPError, bad_request
from quire.server.forms import UnknownKey, unknown_keys
from quire.server.input_phase import go_on
from quire.server.protocol.common import Body
from quire.shown import shown

IGNORED_HEADER = "X-Quire-Ignored"
_MAX_NAMED = 10
_MAX_HEADER = 1024  # characters
_IN_HEADERS = "!#$&'()*+/:;=?@[]^`{|}~"  # beside letters and digits; a comma ends a name


@dataclass(frozen=True, slots=True)
class Kind:
    """A JSON type that a field must have."""

    python: type
    words: str
    schema: str  # as JSON schema calls it

    def fits(self, value: Any) -> bool:
        """Whether a value has this type or is None; [] fits OBJECT, as PHP clients send that."""
        return value is None or isinstance(value, self.python) or (self is OBJECT and value == [])


STRING = Kind(str, "a string", "string")
BOOLEAN = Kind(bool, "true or false", "boolean")
OBJECT = Kind(dict, "an object", "object")
# Accepted fields that do not change the output.
HARMLESS = {
    **dict.fromkeys(("user", "service_tier", "safety_identifier", "session_id"), STRING),
    **dict.fromkeys(("prompt_cache_key", "prompt_cache_retention"), STRING),
    "mm_payload": STRING,
    **dict.fromkeys(("store", "return_mm_kwargs"), BOOLEAN),
    **dict.fromkeys(("metadata", "prompt_cache_options", "prediction"), OBJECT),
    "client_metadata": OBJECT,  # sent by Codex, about itself
}
# Fields of any API that constrain the form of an answer, so that no body that generates may ignore
# them.
CONSTRAINTS = frozenset(
    {
        *("response_format", "structured_outputs", "guided_json", "guided_regex"),
        *("guided_choice", "guided_grammar", "guided_whitespace_pattern"),
        *("output_config", "output_format", "text"),
    }
)

_MEDIA = "only text is served"
_TRANSFER = "KV blocks are not moved between servers"
# What Claude Code sends on its own: clear no reasoning from the history.
_KEEP_THOUGHTS = {"type": "clear_thinking_20251015", "keep": "all"}
# Name -> (values that are accepted, as they ask for nothing; reason and remedy for all others).
# None and empty values are accepted too, but for `_ASK_WHEN_EMPTY`.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "functions": ((), "it is the older name of tools; use that"),
    "function_call": (("none",), "it is the older name of tool_choice; use that"),
    "reasoning": ((), "use reasoning_effort"),
    "verbosity": (("medium",), "ask for it in a message"),
    "prompt_embeds": ((), "prompts cannot be embeddings; pass text or token ids"),
    "modalities": ((["text"],), _MEDIA),
    "audio": ((), _MEDIA),
    "web_search_options": ((), "the server does not search; put the facts into a message"),
    "context_management": (
        ({"edits": []}, {"edits": [_KEEP_THOUGHTS]}),
        "the server does not edit the history; leave out what the model must not see",
    ),
    "container": ((), "the server runs no code"),
    "thread": ((), "the server stores no conversations; send all messages, and no thread"),
    "mcp_servers": ((), "the server does not call tools itself; pass them as tools"),
    "media_io_kwargs": ((), _MEDIA),
    "mm_processor_kwargs": ((), _MEDIA),
    "kv_transfer_params": ((), _TRANSFER),
    "ec_transfer_params": ((), _TRANSFER),
    "vllm_xargs": ((), NOT_BUILT["extra_args"]),
    "logprob_token_ids": ((), NOT_BUILT["logprob_token_ids"]),
    "repetition_detection": ((), NOT_BUILT["repetition_detection"]),
    "watermarking": ((False,), NOT_BUILT["watermarking"]),
    "routed_experts_prompt_start": ((0,), NOT_BUILT["routed_experts_prompt_start"]),
    "return_weight_versions": ((False,), "weights do not change while the server runs"),
    "return_token_offsets": ((False,), "use /tokenize with return_token_strs"),
}

_ASK_WHEN_EMPTY = frozenset({"web_search_options", "thread", "guided_json"})
# Details on which Anthropic's client retries without the field.
_DETAILS = {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}


def judge(body: Body, strict: str, template: Callable[[], str] = str) -> list[str]:
    """The places of the body's unknown fields, at any depth, that are ignored; or 400.

    ``strict`` is ``--strict-fields``: with "error", unknown fields are a 400. Known fields that
    would change the output and are not supported always are. ``template`` returns the text of the
    chat template, which may read keys of a message that Quire does not know.
    """
    is_error = strict == "error"
    unknown = list(islice(_unknown(body, template), _MAX_NAMED if is_error else None))
    if unknown and is_error:
        named = [
            f"unknown field {shown(one.place)}{did_you_mean(one.name, one.known)}"
            for one in unknown
        ]
        raise bad_request(
            f"{'; '.join(named)} (to ignore unknown fields, start the server with "
            "--strict-fields warn)",
            unknown[0].place,
        )
    return [one.place for one in unknown]


def refuse_fields(content: dict[str, Any], model: type[BaseModel]) -> None:
    """400 for a field in `REFUSED`, whose message says more than other errors of the body."""
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
            _refuse_constraint(name, value, body)
            yield UnknownKey(name, name, known)
    for name, form in body.forms.items():
        yield from unknown_keys(getattr(body, name), form, name, template)


def _refuse_constraint(name: str, value: Any, body: Body) -> None:
    # The prompt, or how long an answer should be, is meant by other forms of this name.
    is_other = name == "text" and not (isinstance(value, dict) and "format" in value)
    if name in CONSTRAINTS and body.constraints and not is_other:
        raise bad_request(f"{name} is not supported here: use {body.constraints}.", name)


def _check_kind(name: str, value: Any) -> None:
    kind = HARMLESS[name]
    if not kind.fits(value):
        raise bad_request(f"{name}: must be {kind.words}, got {shown(value)}", name)


def ignored_headers(ignored: list[str], strict: str) -> dict[str, str]:
    """The header that tells a client which fields had no effect; characters that no header may have
    are percent-encoded."""
    value = ",".join(quote(name, safe=_IN_HEADERS) for name in ignored)
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
