"""Turns the messages of a chat request into a prompt.

Owns the rules for messages over HTTP; `chat_template.py` renders them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from quire.chat_template import ChatError, ChatOptions, ChatRenderer
from quire.near_names import did_you_mean
from quire.prompts import ParsedPrompt
from quire.server.errors import bad_request
from quire.server.forms import is_named
from quire.server.protocol.common import (
    CALL_NOTES,
    MESSAGE_NOTES,
    Body,
    ChatMessage,
    ChatPromptBody,
)
from quire.server.state import ServerState
from quire.server.tool_choice import ToolUse, check_tools, tool_use
from quire.template_format import shows_tools, template_fault, template_variables

logger = logging.getLogger(__name__)

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_EFFORT_VARIABLES = ("reasoning_effort", "enable_thinking", "thinking")
_KINDS = {"without tools": ChatOptions(), "with tools": ChatOptions(tools=[{}])}  # of requests


def chat_prompt(state: ServerState, body: ChatPromptBody) -> ParsedPrompt:
    """The rendered prompt, not yet tokenized."""
    renderer = _renderer(state)
    check_tools(body.tools, body.tool_choice)
    options = _options(state, body)
    template = renderer.template(options)
    _check_template(body, template)
    _check_effort(body, template)
    if tool_use(body.tools, body.tool_choice) is not ToolUse.MAY and not shows_tools(template):
        options = replace(options, tools=None)  # no call is wanted, or a grammar forces it
    messages = [_message(one, i, template) for i, one in enumerate(body.messages)]
    prompt = _rendered(renderer, messages, options)
    return replace(prompt, add_special_tokens=bool(body.add_special_tokens))


def template_of(state: ServerState, body: Body) -> Callable[[], str]:
    """A cached getter for the text of the chat template that renders the body's messages; it
    returns "" for a body without messages."""
    if not isinstance(body, ChatPromptBody):
        return str
    return functools.cache(lambda: _renderer(state).template(_options(state, body)))


def warn_of_templates(state: ServerState) -> None:
    """Warn at start-up of chat requests that will be refused because no template renders them, and
    of ``--default-chat-template-kwargs`` that no template of the model reads."""
    if state.args.trust_request_chat_template:  # a request may bring its own
        return
    templates, faults = _own_templates(state.chat)
    for fault, kinds in faults.items():
        requests = "chat requests" + ("" if len(kinds) == len(_KINDS) else f" {kinds[0]}")
        logger.warning("%s will be refused (completions work): %s", requests, fault)
    if state.args.default_chat_template_kwargs and not faults:
        _warn_of_idle_defaults(state.args.default_chat_template_kwargs, templates)


def _warn_of_idle_defaults(given: dict[str, Any], templates: list[str]) -> None:
    known = ChatPromptBody.forms["chat_template_kwargs"].known
    read = frozenset(known).union(*map(template_variables, templates))
    idle = [name for name in given if name not in read]
    if not templates:
        logger.warning(
            "--default-chat-template-kwargs has no effect: there is no chat template; leave it "
            "out, or give a --chat-template"
        )
    elif idle:
        logger.warning(
            "--default-chat-template-kwargs: the chat template does not read %s, which has no "
            "effect; leave it out, or correct its name",
            ", ".join(map(repr, idle)),
        )


def _own_templates(chat: ChatRenderer | None) -> tuple[list[str], dict[str, list[str]]]:
    """The chat templates of the kinds of requests, which differ for some models, and for each
    fault the kinds that have it."""
    templates: list[str] = []
    faults: dict[str, list[str]] = {}
    if chat is None:
        return templates, faults
    for kind, options in _KINDS.items():
        try:
            template = chat.template(options)
            fault = _own_fault(template)
        except ValueError as error:  # there is none, or none of several is the default
            fault = str(error)
        if fault is None:
            templates.append(template)
        else:
            faults.setdefault(fault, []).append(kind)
    return templates, faults


def _own_fault(template: str) -> str | None:
    """Why the model's own template renders nothing; None if it parses."""
    if (fault := template_fault(template)) is None:
        return None
    return (
        f"The model's chat template does not parse: {fault}; correct it, or start the server with "
        "another --chat-template."
    )


def _renderer(state: ServerState) -> ChatRenderer:
    if state.chat is None:
        raise bad_request(
            "The server has no tokenizer (--skip-tokenizer-init), so it cannot render messages; "
            "send token ids to /v1/completions.",
            "messages",
        )
    return state.chat


def _rendered(
    renderer: ChatRenderer, messages: list[dict[str, Any]], options: ChatOptions
) -> ParsedPrompt:
    try:
        return renderer.render(messages, options)
    except ChatError as error:
        raise bad_request(f"{error}.", error.place) from error
    except ValueError as error:
        raise bad_request(str(error), "messages") from error


def _options(state: ServerState, body: ChatPromptBody) -> ChatOptions:
    args = state.args
    if body.chat_template is not None and not args.trust_request_chat_template:
        raise bad_request(
            "Chat template is passed with request, but --trust-request-chat-template is not set. "
            "Refused request with untrusted chat template.",
            "chat_template",
        )
    continues = bool(body.continue_final_message)
    begins = body.add_generation_prompt
    if continues and begins:
        raise bad_request(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
            "continue_final_message",
        )
    hides_tools = args.exclude_tools_when_tool_choice_none and body.tool_choice == "none"
    return ChatOptions(
        template=body.chat_template,
        content_format=args.chat_template_content_format,
        add_generation_prompt=not continues if begins is None else begins,
        continue_final_message=continues,
        tools=None if hides_tools else body.tools,
        documents=body.documents,
        template_kwargs={
            **(args.default_chat_template_kwargs or {}),
            **_thinking(body),
            **(body.chat_template_kwargs or {}),
        },
        allows_unread_kwargs=True,  # the server's defaults; the request's are checked before
    )


def reads_effort(template: str) -> bool:
    """Whether the template reads a variable that ``reasoning_effort`` sets."""
    return not template_variables(template).isdisjoint(_EFFORT_VARIABLES)


def forbids_thoughts(state: ServerState, body: ChatPromptBody) -> bool:
    """Whether the chat template is told to disable thinking, which it may ignore."""
    return _options(state, body).forbids_thoughts


def _thinking(body: ChatPromptBody) -> dict[str, Any]:
    """The variables of `_EFFORT_VARIABLES`; some templates only read on or off."""
    effort = body.reasoning_effort
    if effort is None:
        return {}
    thinks = effort != "none"
    return {"reasoning_effort": effort, "enable_thinking": thinks, "thinking": thinks}


def _check_template(body: ChatPromptBody, template: str) -> None:
    """400 for a chat template that does not parse: the request's, or the model's own."""
    if body.chat_template is None:
        if (fault := _own_fault(template)) is not None:
            raise bad_request(fault)
    elif (fault := template_fault(template)) is not None:
        raise bad_request(f"The chat template does not parse: {fault}.", "chat_template")


def _check_effort(body: ChatPromptBody, template: str) -> None:
    """400 for a ``reasoning_effort`` that the template does not read, unless it is "none"."""
    effort = body.reasoning_effort
    if effort in (None, "none") or reads_effort(template):
        return
    raise bad_request(
        f"reasoning_effort={effort!r} has no effect: the model's chat template reads no variable "
        "for it; leave it out.",
        "reasoning_effort",
    )


def _message(message: ChatMessage, index: int, template: str) -> dict[str, Any]:
    """The message as templates expect it, with reasoning under both of its names; 400 for an
    unknown role."""
    place = f"messages[{index}]"
    plain: dict[str, Any] = {"role": message.role, **(message.model_extra or {})}
    if "content" in message.model_fields_set:  # a missing one may be misspelt
        plain["content"] = message.content
    if message.role not in _ROLES and not _knows_role(template, message.role):
        raise bad_request(
            f"{place}.role: there is no role {message.role[:40]!r}"
            f"{did_you_mean(message.role, _ROLES)}; the roles are {', '.join(_ROLES)}.",
            f"{place}.role",
        )
    if message.role == "developer" and not _spells(template, "developer"):
        plain["role"] = "system"
    reasoning = plain.get("reasoning") or plain.get("reasoning_content") or _noted_thoughts(plain)
    if reasoning:
        plain["reasoning"] = plain["reasoning_content"] = reasoning
    if isinstance(calls := plain.get("tool_calls"), list):
        plain["tool_calls"] = [_call(one, template) for one in calls]
    return _without_notes(plain, MESSAGE_NOTES, template)


def _noted_thoughts(message: dict[str, Any]) -> str:
    """The reasoning of a message that has it only in what LiteLLM notes there."""
    blocks, items = message.get("thinking_blocks"), message.get("reasoning_items")
    thoughts = [block.get("thinking") for block in _objects(blocks)]
    for item in _objects(items):
        thoughts += [part.get("text") for part in _objects(item.get("summary"))]
    return "\n".join(one for one in thoughts if isinstance(one, str) and one)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _call(call: Any, template: str) -> Any:
    """A call of a tool as a template may write it whole."""
    if not isinstance(call, dict):
        return call
    call = _without_notes(call, CALL_NOTES, template)
    if isinstance(function := call.get("function"), dict):
        call["function"] = _without_notes(function, CALL_NOTES, template)
    return call


def _without_notes(noted: dict[str, Any], notes: Sequence[str], template: str) -> dict[str, Any]:
    """Without the client's own notes, but for those that the template names."""
    if not any(name in noted for name in notes):
        return dict(noted)
    dropped = {name for name in notes if not is_named(template, name)}
    return {name: value for name, value in noted.items() if name not in dropped}


def _knows_role(template: str, role: str) -> bool:
    """Whether the template handles a non-standard role: it has the role as a string literal, or it
    reads roles and has no standard one as a literal, and so writes whatever role comes."""
    if not role:
        return False
    writes_any = "role" in template and not any(_spells(template, one) for one in _ROLES)
    return writes_any or _spells(template, role)


def _spells(template: str, role: str) -> bool:
    return any(f"{quote}{role}{quote}" in template for quote in "'\"")
