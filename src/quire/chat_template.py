"""Renders a conversation to a prompt, with the tokenizer's Jinja template or a given one.

Owns what a message may hold and in which form a template wants it. Templates run in the sandbox of
`transformers`. Knows nothing about engines and servers.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quire.chat_calls import arranged, call_with_object, call_with_text, calls_as_text
from quire.chat_template_choice import named
from quire.chat_templates import chat_template_names, ends_of_format
from quire.near_names import did_you_mean, nearest
from quire.prompts import ParsedPrompt, is_list
from quire.shown import shown
from quire.template_format import (
    ContentFormat,
    detect_content_format,
    shows_tools,
    template_fault,
    template_variables,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]  # as in the OpenAI API: role, content, tool_calls, ...
Conversation = Sequence[Message]

_NEED_CONTENT = ("system", "developer", "user", "tool", "function")  # standard roles
# Users set these for any model; one that does not think need not read them.
_FOR_ANY_TEMPLATE = ("enable_thinking", "thinking")
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_THOUGHTS = ("thinking", "reasoning", "reasoning_content")  # names of a message's thought
_RESULTS = ("tool", "function")  # roles of results, which may be null
_SAY_SOMETHING = {"tool_calls", *_THOUGHTS}  # instead of a content
_OF_ANY_MESSAGE = ("role", "content", "name", "id", "tool_call_id")
_CODE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)  # of a template, without texts and comments
_OWN_ARGUMENTS = {  # not to be overridden through template_kwargs
    "conversation",
    "messages",
    "chat_template",
    "tokenize",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "return_tensors",
    "return_dict",
    "padding",
    "truncation",
    "max_length",
}


class ChatError(ValueError):
    """What is wrong with a conversation or its options, and in which field."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatOptions:
    """How a conversation becomes a prompt."""

    template: str | None = None  # Jinja or a name; None is the renderer's own, then the tokenizer's
    content_format: str = "auto"  # "string", "openai" (lists of parts), or what the template wants
    add_generation_prompt: bool = True  # end with the head of the assistant's answer
    continue_final_message: bool = False  # leave the last message open, to be continued
    tools: Sequence[Any] | None = None  # OpenAI tool definitions, or Python functions
    documents: Sequence[Mapping[str, Any]] | None = None
    template_kwargs: Mapping[str, Any] | None = None  # more variables for the template
    allows_unread_kwargs: bool = False  # else the template must read all template_kwargs

    @property
    def forbids_thoughts(self) -> bool:
        """Whether the template is told to switch thinking off, which it may ignore."""
        told = self.template_kwargs or {}
        return told.get("enable_thinking") is False or told.get("thinking") is False

    def __post_init__(self) -> None:
        if self.content_format not in ("auto", "string", "openai"):
            raise ValueError(
                "chat_template_content_format must be 'auto', 'string' or 'openai', got "
                f"{self.content_format!r}"
            )
        if self.add_generation_prompt and self.continue_final_message:
            raise ValueError(
                "add_generation_prompt and continue_final_message cannot both be true: an answer "
                "is either begun or continued; set add_generation_prompt=False to continue"
            )
        for name, value, kind in (
            ("tools", self.tools, Sequence),
            ("documents", self.documents, Sequence),
            ("chat_template_kwargs", self.template_kwargs, Mapping),
        ):
            if value is not None and (not isinstance(value, kind) or isinstance(value, str)):
                what = "a list" if kind is Sequence else "a dict"
                raise ValueError(f"{name} must be {what}, got {value!r}; leave it out for none")
        reserved = _OWN_ARGUMENTS & set(self.template_kwargs or {})
        if reserved:
            raise ValueError(
                f"chat_template_kwargs cannot hold {', '.join(sorted(reserved))}; pass it as an "
                "argument of its own"
            )


class ChatRenderer:
    """Renders conversations for one tokenizer; ``template``, Jinja or a name, overrides the
    tokenizer's default."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._template = named(template, tokenizer.chat_template)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer

    def render(self, messages: Conversation, options: ChatOptions | None = None) -> ParsedPrompt:
        """The prompt, whose text already contains all special tokens."""
        options = options or ChatOptions()
        if options.continue_final_message:
            _check_final(messages)
        template = self.template(options)
        _check_read(template, options)
        style = detect_content_format(template)
        if options.content_format == "openai":
            style = replace(style, name="openai", tests_strings=False)
        elif options.content_format == "string":
            style = replace(style, name="string")
        conversation = [
            _rendered_message(message, template, style, f"messages[{index}]")
            for index, message in enumerate(_checked(messages))
        ]
        try:
            text = self._rendered(messages, conversation, template, options)
        except RecursionError as error:
            raise ValueError(
                "the chat template cannot render these messages: what it is given is nested too "
                "deeply"
            ) from error
        except Exception as error:  # a template is a program of its own
            raise ValueError(
                f"the chat template cannot render these messages: {error or type(error).__name__}"
            ) from error
        return ParsedPrompt(text=text, add_special_tokens=False, ends=ends_of_format(template))

    def _rendered(
        self,
        messages: Conversation,
        conversation: list[dict[str, Any]],
        template: str,
        options: ChatOptions,
    ) -> str:
        """Render with tool-call arguments as objects, or as text if the template joins strings."""
        try:
            return self._applied(conversation, template, options)
        except TypeError as error:
            try:
                return self._applied(
                    _with_arguments_as_text(messages, conversation), template, options
                )
            except Exception:  # the arguments were not the cause
                raise error from None

    def _applied(
        self, conversation: list[dict[str, Any]], template: str, options: ChatOptions
    ) -> str:
        """One run of the template."""
        style = detect_content_format(template)
        if style.parts_thought:
            conversation = [_with_text_in_thought(message) for message in conversation]
        conversation = arranged(conversation, reads_one_call=style.reads_one_call)
        if options.tools and style.tools_in_message:
            conversation = _with_tools_in_message(conversation, options.tools)
        given: dict[str, Any] = {
            "chat_template": template,
            "tools": list(options.tools) if options.tools else None,
            "documents": [dict(one) for one in options.documents] if options.documents else None,
            "add_generation_prompt": options.add_generation_prompt,
            "continue_final_message": options.continue_final_message,
        }
        kwargs = dict(options.template_kwargs or {})
        if all(message["content"] is not None for message in conversation):
            text = self._tokenizer.apply_chat_template(
                conversation, tokenize=False, **given, **kwargs
            )
            return str(text)
        # The tokenizer's method leaves out what is None; a template that asks must see it.
        from transformers.utils.chat_template_utils import render_jinja_template

        variables = {**self._tokenizer.special_tokens_map, **kwargs}
        found: Any = render_jinja_template([conversation], **given, **variables)  # declared a str
        texts, _ = found
        return str(texts[0])

    def template(self, options: ChatOptions) -> str:
        """The Jinja text that these options render with."""
        given = named(options.template, self._tokenizer.chat_template) or self._template
        try:
            tools = list(options.tools) if options.tools else None
            return str(self._tokenizer.get_chat_template(given, tools=tools))
        except ValueError as error:
            if self._tokenizer.chat_template:
                raise  # several templates, none of them the default: its message names them
            raise ValueError(
                "As of transformers v4.44, default chat template is no longer allowed, so you must "
                "provide a chat template if the tokenizer does not define one. Pass chat_template= "
                "(--chat-template) with a file, a Jinja template or the name of one of ours "
                f"({', '.join(chat_template_names())}); models that are not trained for chat take "
                "prompts without one (generate, or the completions endpoint)."
            ) from error


def is_one_conversation(messages: Sequence[Any]) -> bool:
    """Whether these are the messages of one conversation, not a list of conversations."""
    if not is_list(messages):
        raise ValueError(
            "messages must be a list of messages, or a list of such lists, got "
            f"{shown(messages)} ({type(messages).__name__})"
        )
    if not messages:
        return False
    kinds = [_is_conversation(one, f"messages[{i}]") for i, one in enumerate(messages)]
    if any(kinds) and not all(kinds):
        first, other = kinds.index(True), kinds.index(False)
        raise ValueError(
            f"the list mixes conversations and messages: messages[{first}] is a list, "
            f"messages[{other}] a message; pass one conversation, or a list of conversations only"
        )
    return not kinds[0]


def _is_conversation(item: Any, place: str) -> bool:
    """Whether ``item`` is a list of messages; ValueError if it is not a message either."""
    if isinstance(item, Mapping):
        return False
    if is_list(item):
        return True
    raise ValueError(
        f"{place} must be a message, a dict with a 'role' and a 'content', or a list of messages, "
        f"got {_shown(item)}"
    )


def _shown(message: Any) -> str:
    """The value found instead of a message, shortened, with a remedy if it is an object."""
    text = f"{shown(message)} ({type(message).__name__})"
    if isinstance(message, (Mapping, str, bytes, int, float, type(None))):
        return text
    as_dict = ".model_dump()" if hasattr(message, "model_dump") else "vars(...) or .model_dump()"
    return f"{text}; pass the object as a dict, by {as_dict}"


def _check_read(template: str, options: ChatOptions) -> None:
    """Refuse what would not reach the model, since the template does not read it."""
    if template_fault(template) is not None:
        return  # rendering reports it
    variables = template_variables(template)
    if options.tools and not shows_tools(template):
        raise ChatError(
            "tools",
            "tools have no effect: the model's chat template does not read them; give a chat "
            "template that does (--chat-template), or leave them out and describe them in a "
            "message",
        )
    if options.documents and "documents" not in variables:
        raise ChatError(
            "documents",
            "documents have no effect: the model's chat template does not read them; give a chat "
            "template that does (--chat-template), or put their texts into a message",
        )
    known = variables.union(_FOR_ANY_TEMPLATE)
    for name in [] if options.allows_unread_kwargs else options.template_kwargs or {}:
        if name not in known:
            place = f"chat_template_kwargs.{name}"
            raise ChatError(
                place,
                f"unknown field {place!r}{did_you_mean(str(name), known)}; the chat template does "
                "not read it, so leave it out",
            )


def _check_tool_calls(calls: Any, place: str) -> None:
    """Templates do not check a message's ``tool_calls`` themselves."""
    if not isinstance(calls, (list, tuple)):
        raise ChatError(place, f"{place}: must be a list of calls, got {shown(calls)}")
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        has_fitting = arguments is None or isinstance(arguments, (str, Mapping))
        if not isinstance(name, str) or not has_fitting:
            raise ChatError(
                f"{place}[{index}]",
                f"{place}[{index}]: must be an object with a function that has a name, a string, "
                f"and arguments, JSON as a string; got {shown(call)}",
            )


def _check_has_content(message: Message, template: str, place: str) -> None:
    """Templates write nothing for a message whose content is missing or misspelt. An answer may be
    empty, a result null, and a role of the template's own may have other fields."""
    if message.get("content") is not None:
        return
    role = message["role"]
    others = [
        str(name)
        for name, value in message.items()
        if value is not None and name not in _OF_ANY_MESSAGE
    ]
    misspelt = [name for name in others if nearest(name, ["content"])]
    if role == "assistant" or (role in _RESULTS and "content" in message):
        is_right = not misspelt or not _SAY_SOMETHING.isdisjoint(others)
    else:
        is_right = role not in _NEED_CONTENT and any(_reads(template, name) for name in others)
    if is_right:
        return
    hint = f"; it has {misspelt[0]!r}, did you mean content?" if misspelt else ""
    raise ChatError(
        f"{place}.content",
        f"{place}.content: a message of role {role!r} needs a content, which is a string or a list "
        f"of text parts{hint}",
    )


def _reads(template: str, name: str) -> bool:
    """Whether the template's code has this name of a field anywhere."""
    return re.search(rf"\b{re.escape(name)}\b", _code_of(template)) is not None


@functools.lru_cache(maxsize=64)
def _code_of(template: str) -> str:
    return " ".join(_CODE.findall(template))


def _checked(messages: Conversation) -> Conversation:
    if not messages:
        raise ValueError("a conversation needs at least one message; pass {'role': ..., ...}")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(
                f"a message must be a dict with a 'role' and a 'content', got {_shown(message)}"
            )
    return messages


def _check_final(messages: Conversation) -> None:
    """Refuse to continue a message with tool calls: templates write those after its content."""
    last = len(messages) - 1
    if last >= 0 and isinstance(messages[last], Mapping) and messages[last].get("tool_calls"):
        raise ValueError(
            f"messages[{last}].tool_calls: the final message cannot be continued when it has tool "
            "calls, which the prompt would lack; remove tool_calls, or set "
            "continue_final_message=False"
        )


def _rendered_message(
    message: Message, template: str, style: ContentFormat, place: str
) -> dict[str, Any]:
    """The message as templates expect it: content in the right form, arguments of calls parsed."""
    _check_has_content(message, template, place)
    rendered = {name: value for name, value in message.items() if value is not None}
    content, calls = message.get("content"), rendered.pop("tool_calls", None)
    if calls:  # templates that find the name expect calls under it
        _check_tool_calls(calls, f"{place}.tool_calls")
        rendered["tool_calls"] = [call_with_object(call) for call in calls]
        if not _reads(template, "tool_calls"):
            content = _with_calls_as_text(content, calls, template)
    is_null = content is None and bool(calls) and style.tests_none
    rendered["content"] = None if is_null else _content(content, style, f"{place}.content")
    return rendered


def _with_calls_as_text(content: Any, calls: Sequence[Mapping[str, Any]], template: str) -> Any:
    """The content with the calls behind it, for a template that would leave them out."""
    text = calls_as_text(calls, template)
    if isinstance(content, (list, tuple)):
        return [*content, text]
    if content is None or content == "":
        return text
    return f"{content}\n{text}" if isinstance(content, str) else content


def _with_tools_in_message(
    conversation: list[dict[str, Any]], tools: Sequence[Any]
) -> list[dict[str, Any]]:
    """The conversation with the tools in its system message, as Phi-4-mini's template reads them:
    the JSON of a list of functions."""
    from transformers.utils import get_json_schema

    schemas = [tool if isinstance(tool, Mapping) else get_json_schema(tool) for tool in tools]
    functions = [schema.get("function", schema) for schema in schemas]
    first, *others = conversation
    if first["role"] != "system":
        first, others = {"role": "system", "content": ""}, conversation
    return [{**first, "tools": json.dumps(functions, ensure_ascii=False)}, *others]


def _with_text_in_thought(message: dict[str, Any]) -> dict[str, Any]:
    """A message with calls, with its text behind its thought, for a template that refuses both."""
    if not message.get("tool_calls"):
        return message
    thought = next((message[name] for name in _THOUGHTS if message.get(name)), None)
    text = text_of(message["content"])
    if not text or not isinstance(thought, str):
        return message
    return {**message, "content": "", "thinking": f"{thought}\n{text}"}


def _content(content: Any, style: ContentFormat, place: str) -> str | list[dict[str, str]]:
    if content is None:
        content = ""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if style.is_list else content
    if not isinstance(content, (list, tuple)):
        raise ValueError(
            f"the content of a message must be a string or a list of parts, got {shown(content)}"
        )
    texts = [_part_text(part, f"{place}[{index}]") for index, part in enumerate(content)]
    if style.is_list:
        return [{"type": "text", "text": text} for text in texts]
    return style.separator.join(texts)


def _part_text(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if not isinstance(kind, str):
        raise ValueError(f"{place}.type: must be a string, such as 'text', got {shown(kind)}")
    if kind not in _TEXT_PARTS:
        raise ValueError(
            f"{place}: message parts of type {kind!r} are not supported yet; only text parts are, "
            "{'type': 'text', 'text': ...}"
        )
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise ValueError(
            f"{place}: a part of type {kind!r} needs a string under {_TEXT_PARTS[kind]!r}"
        )
    return text


def _with_arguments_as_text(
    messages: Conversation, conversation: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rendered messages, with the arguments of calls as the client wrote them."""
    return [
        {**rendered, "tool_calls": [call_with_text(call) for call in message["tool_calls"]]}
        if "tool_calls" in rendered
        else rendered
        for message, rendered in zip(messages, conversation, strict=True)
    ]


def text_of(content: str | list[Any] | None) -> str:
    """The whole text of a message's content, whose parts have been checked."""
    if isinstance(content, list):
        return "\n".join(_chat_part_text(part) for part in content)
    return content or ""


def _chat_part_text(part: Any) -> str:
    if isinstance(part, Mapping):
        return str(part.get("text") or part.get("refusal") or "")
    return str(part)
