"""The form of contents is read from what a template does with them."""

from __future__ import annotations

import pytest

from quire import template_format
from quire.template_format import detect_content_format, shows_tools

MESSAGES = "{% for m in messages %}HERE{% endfor %}"
PARTS = "{% for p in c %}{{ p['text'] }}{% endfor %}"


@pytest.mark.parametrize(
    "body",
    [
        "{% for p in m.content %}{{ p }}{% endfor %}",
        "{% for p in m.get('content') %}{{ p }}{% endfor %}",
        "{% for p in m['content'] | list %}{{ p }}{% endfor %}",
        "{% for p in m.content | default([]) | reverse %}{{ p }}{% endfor %}",
        "{% set c = m.get('content', '') %}" + PARTS,
        "{% set c = m.content | select('mapping') %}" + PARTS,
        "{{ m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}",
        "{{ m.content | map(attribute='text') | join }}",
        "{% macro write(role, c) %}" + PARTS + "{% endmacro %}{{ write('a', m.content) }}",
        "{% macro write(c) %}" + PARTS + "{% endmacro %}{{ write(c=m['content']) }}",
        "{% macro write(c) %}" + PARTS + "{% endmacro %}{% set d = m.content %}{{ write(d) }}",
        "{% macro write(m) %}{% set c = m.get('content') %}" + PARTS + "{% endmacro %}",
    ],
)
def test_a_walk_over_parts_is_seen(body: str) -> None:
    assert detect_content_format(MESSAGES.replace("HERE", body)).name == "openai"


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content }}",
        "{{ m.get('content') }}",
        "{{ m.get('role') }}{% for call in m.get('calls') %}{{ call.text }}{% endfor %}",
        "{% set c = m.content | trim %}{{ c | upper }}",
        "{% for line in m.content.split('a') %}{{ line }}{% endfor %}",
        "{% for line in (m.content | trim).splitlines() | map('trim') %}{{ line }}{% endfor %}",
        # macros that write values of any kind
        "{% macro show(v) %}{% for x in v %}{{ x }}{% endfor %}{% endmacro %}{{ show(m.content) }}",
        "{% macro write(c, d) %}" + PARTS + "{% endmacro %}{{ write(m.calls, m.content) }}",
    ],
)
def test_what_is_no_walk_over_parts_is_text(body: str) -> None:
    assert detect_content_format(MESSAGES.replace("HERE", body)).name == "string"


@pytest.mark.parametrize(
    ("body", "strings", "none"),
    [
        ("{% if m.get('content') is string %}{% endif %}", True, False),
        ("{% if m.content is not none %}{% endif %}", False, True),
        ("{% if m.tool_calls is none or m.name is string %}{% endif %}", False, False),
        (
            "{% macro write(c) %}{% if c is string %}{{ c }}{% elif c is not none %}"
            + PARTS
            + "{% endif %}{% endmacro %}{{ write(m.content) }}",
            True,
            True,
        ),
    ],
)
def test_what_is_asked_of_a_content(body: str, strings: bool, none: bool) -> None:
    found = detect_content_format(MESSAGES.replace("HERE", body))
    assert (found.tests_strings, found.tests_none) == (strings, none)


@pytest.mark.parametrize(
    "body",
    [
        "{% set call = m.tool_calls[0] %}{{ call.name }}",
        "{% if m.tool_calls | length != 1 %}{{ raise_exception('') }}{% endif %}"
        "{% set call = m['tool_calls'][0].function %}",
        "{{ (m.get('tool_calls') | first).name }}",
    ],
)
def test_a_template_that_reads_one_call_is_seen(body: str) -> None:
    assert detect_content_format(MESSAGES.replace("HERE", body)).reads_one_call


@pytest.mark.parametrize(
    "body",
    [
        "{% for call in m.tool_calls %}{{ call.name }}{% endfor %}",
        "{% if m.tool_calls[0].name %}{{ m.tool_calls | tojson }}{% endif %}",
        "{{ m.tool_calls[0].id }}{% set all = m.tool_calls %}",
        "{{ m.tool_calls[0].id }}{{ write(calls=m.tool_calls) }}",
        "{{ m.tool_calls[0].id }}{% for call in m['tool_calls'] or [] %}{% endfor %}",
        "{{ m.content[0] }}",
    ],
)
def test_a_template_that_reads_all_calls_or_none_is_seen(body: str) -> None:
    assert not detect_content_format(MESSAGES.replace("HERE", body)).reads_one_call


def test_a_template_that_refuses_a_text_beside_a_thought_is_seen() -> None:
    refusal = "{% if m.content and m.thinking %}{{ raise_exception('one') }}{% endif %}"
    other = "{% if m.content and m.thinking %}x{% else %}{{ raise_exception('one') }}{% endif %}"
    assert detect_content_format(MESSAGES.replace("HERE", refusal)).parts_thought
    assert not detect_content_format(MESSAGES.replace("HERE", other)).parts_thought


@pytest.mark.parametrize(
    ("template", "shows"),
    [
        ("{{ tools }}", True),
        ("{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools }}", True),
        ("{% macro all() %}{{ tools | tojson }}{% endmacro %}{{ all() }}", True),
        (MESSAGES.replace("HERE", "{{ m.content + m['tools'] }}"), True),
        (MESSAGES.replace("HERE", "{% for tool in m.tools %}{{ tool }}{% endfor %}"), False),
        ("You have tools. {# tools #}{{ 'tools' + messages[0].content }}", False),
        ("{% set tools = [] %}{{ tools }}", False),
        ("{{ tools", False),
    ],
)
def test_a_template_that_shows_tools_is_seen(template: str, shows: bool) -> None:
    assert shows_tools(template) is shows


def test_a_template_is_asked_about_tools_once(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ 'a template of this test' }}"
    assert not shows_tools(template)
    monkeypatch.setattr(template_format, "_environment", lambda: pytest.fail("parsed again"))
    assert not shows_tools(template)
