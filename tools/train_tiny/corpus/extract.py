"""Owns the extraction of JSON objects from a text, with a JSON schema or a list of keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from . import words
from .base import Check, Talk, expand, is_held
from .countries import COUNTRIES
from .names import full_name, gibberish, invented, person, place, word

Value = str | int | float | bool | list[str]


class Field(NamedTuple):
    """One value of a record: its keys, JSON type, how it is drawn and how a text tells it."""

    keys: tuple[str, ...]
    kind: str
    draw: Callable[[Random, bool], Value]
    say: tuple[str, ...]


def _some(options: tuple[str, ...]) -> Callable[[Random, bool], Value]:
    return lambda r, held: r.choice(options)


def _price(r: Random, held: bool) -> Value:
    return round(r.uniform(1, 500), 2) if r.random() < 0.6 else r.randint(1, 999)


_PERSON = {
    "name": Field(("name", "name", "name", "full_name", "person", "first_name", "user_name"), "string",
                  lambda r, h: full_name(r, h) if r.random() < 0.25 else person(r, h), ()),
    "age": Field(("age", "age", "age", "age_years", "years"), "integer",
                 lambda r, h: r.randint(1, 99),
                 ("[is|just turned] {v} years old", "is {v}", "is aged {v}", "is a {v}-year-old", "turned {v}")),
    "city": Field(("city", "city", "location", "home", "town", "place"), "string", place,
                  ("lives in {v}", "comes from {v}", "is from {v}", "moved to {v}", "is based in {v}")),
    "job": Field(("job", "occupation", "profession", "job_title", "work"), "string", _some(words.JOBS),
                 ("works as a {v}", "is a {v}", "has a job as a {v}")),
    "country": Field(("country", "nation", "country"), "string",
                     lambda r, h: r.choice(COUNTRIES).name.removeprefix("the "),
                     ("was born in {v}", "grew up in {v}")),
    "email": Field(("email", "email_address", "mail"), "string",
                   lambda r, h: f"{person(r, h).lower()}@{gibberish(r, h).lower()}."
                   f"{r.choice(('com', 'org', 'net'))}",
                   ("can be reached at {v}", "has the email {v}", "uses the address {v}")),
    "hobby": Field(("hobby", "likes", "interest"), "string", _some(words.HOBBIES),
                   ("likes {v}", "enjoys {v}", "loves {v}")),
    "hobbies": Field(("hobbies", "interests"), "array", lambda r, h: r.sample(words.HOBBIES, r.randint(2, 3)),
                     ("likes {v}", "enjoys {v}", "loves {v}")),
    "colour": Field(("favorite_color", "colour", "color", "favourite_colour"), "string",
                    _some(words.COLOURS), ("likes the colour {v}", "has {v} as favourite colour")),
    "student": Field(("is_student", "student"), "boolean", lambda r, h: r.random() < 0.5, ()),
    "pet": Field(("pet", "animal"), "string", _some(words.PETS), ("has a {v}", "owns a {v}")),
}
_PRODUCT = {
    "product": Field(("product", "item", "name", "product_name"), "string", _some(words.PRODUCTS), ()),
    "price": Field(("price", "cost", "price_usd", "amount"), "number", _price,
                   ("costs {v} [dollars|euros]", "is sold for {v}", "has a price of {v}", "costs ${v}")),
    "quantity": Field(("quantity", "stock", "count", "units"), "integer", lambda r, h: r.randint(1, 500),
                      ("is there {v} times", "has {v} units in stock", "was ordered {v} times")),
    "brand": Field(("brand", "maker", "company", "manufacturer"), "string", lambda r, h: _held(r, h),
                   ("is made by {v}", "comes from the brand {v}")),
    "colour": Field(("color", "colour"), "string", _some(words.COLOURS), ("is {v}", "comes in {v}")),
    "available": Field(("in_stock", "available"), "boolean", lambda r, h: r.random() < 0.5, ()),
}
_EVENT = {
    "event": Field(("event", "title", "name", "event_name"), "string", _some(words.EVENTS), ()),
    "city": Field(("city", "location", "place", "venue"), "string", place,
                  ("takes place in {v}", "is in {v}", "will be held in {v}")),
    "day": Field(("day", "date", "weekday"), "string", _some(words.DAYS), ("is on {v}", "happens on {v}")),
    "time": Field(("time", "start", "start_time"), "string",
                  lambda r, h: f"{r.randint(0, 23):02d}:{r.choice(('00', '15', '30', '45'))}",
                  ("starts at {v}", "begins at {v}")),
    "guests": Field(("attendees", "guests", "people", "participants"), "integer",
                    lambda r, h: r.randint(2, 900), ("has {v} guests", "expects {v} people")),
    "host": Field(("host", "organizer", "speaker"), "string", person,
                  ("is hosted by {v}", "is led by {v}", "is organised by {v}")),
}
_BOOK = {
    "title": Field(("title", "book", "name"), "string", lambda r, h: _title(r, h), ()),
    "author": Field(("author", "writer", "by"), "string", full_name,
                    ("was written by {v}", "is by {v}", "is a book by {v}")),
    "year": Field(("year", "published", "publication_year"), "integer", lambda r, h: r.randint(1600, 2030),
                  ("came out in {v}", "is from {v}", "was published in {v}")),
    "pages": Field(("pages", "length", "page_count"), "integer", lambda r, h: r.randint(20, 1200),
                   ("has {v} pages",)),
    "price": _PRODUCT["price"],
}
_DOMAINS = ((_PERSON, "name"), (_PERSON, "name"), (_PRODUCT, "product"), (_EVENT, "event"),
            (_BOOK, "title"))


def _title(r: Random, held: bool) -> str:
    parts = [w.capitalize() for w in r.choices(words.COMMON, k=r.randint(1, 2))]
    parts.insert(r.randint(0, len(parts)), _held(r, held))
    return " ".join(parts[: r.randint(1, 3)] if not held else parts)


def _held(r: Random, held: bool) -> str:
    name = invented(r)
    while is_held(name) != held:
        name = invented(r)
    return name


def _told(r: Random, field: Field, value: Value) -> str:
    if field.kind == "boolean":
        yes, no = {
            "is_student": ("is a student", "is not a student"),
            "in_stock": ("is in stock", "is sold out"),
        }[field.keys[0]]
        return yes if value else no
    shown = value
    if isinstance(value, list):
        shown = ", ".join(value[:-1]) + f" and {value[-1]}"
    return expand(r, r.choice(field.say)).format(v=shown)


def _text(r: Random, subject: str, clauses: list[str], domain: dict[str, Field]) -> str:
    start, again = subject, r.choice(("He", "She")) if domain is _PERSON else "It"
    if domain is _BOOK:
        start = r.choice((f'"{subject}"', f"The book '{subject}'", subject))
    elif domain is not _PERSON:
        start = f"The {subject}"
    sentences = []
    rest = list(clauses)
    while rest:
        take = min(len(rest), r.choice((1, 1, 2, 3)))
        part, rest = rest[:take], rest[take:]
        joined = ", ".join(part[:-1]) + (" and " if take > 1 else "") + part[-1]
        sentences.append(f"{start} {joined}.")
        start = again if r.random() < 0.8 else start
    if domain is _PERSON and r.random() < 0.2:
        sentences.insert(0, expand(r, f"[Hello, my name is|This is|Meet|The name is] {subject}."))
    if not sentences:
        sentences = [f"This is {subject}." if domain is _PERSON else f"This is a {subject}."]
    return " ".join(sentences)


def _record(r: Random, held: bool) -> tuple[str, dict[str, Value], dict[str, str]]:
    """A text, the record to find in it and the JSON type of each key."""
    domain, head = r.choice(_DOMAINS)
    others = [k for k in domain if k != head and (k != "hobbies" or r.random() < 0.5)]
    told = r.sample(others, r.randint(1, min(4, len(others))))
    if "hobby" in told and "hobbies" in told:
        told.remove("hobby")
    values = {k: domain[k].draw(r, held) for k in [head, *told]}
    text = _text(r, str(values[head]), [_told(r, domain[k], values[k]) for k in told], domain)
    wanted = list(values)
    if len(wanted) > 2 and r.random() < 0.4:
        wanted.remove(r.choice(wanted))
    if r.random() < 0.5:
        r.shuffle(wanted)
    record: dict[str, Value] = {}
    kinds: dict[str, str] = {}
    for k in wanted:
        key = domain[k].keys[0] if r.random() < 0.5 else r.choice(domain[k].keys)
        if key in record:
            key = k
        record[key] = values[k]
        kinds[key] = domain[k].kind
    return text, record, kinds


def _free_record(r: Random, held: bool) -> tuple[str, dict[str, Value], dict[str, str]]:
    """As `_record`, from a text of ``the key is value`` with keys and values of no domain."""
    record: dict[str, Value] = {}
    kinds: dict[str, str] = {}
    said = []
    subject = r.choice(words.COMMON)
    for key in r.sample(_FREE_KEYS, r.randint(1, 5)):
        kind = r.choice(("string", "string", "integer", "number"))
        value: Value = r.randint(0, 9999)
        if kind == "number":
            value = round(r.uniform(0, 999), r.choice((1, 2)))
        if kind == "string":
            value = r.choice((person, place, word, lambda q, h: q.choice(words.COMMON)))(r, held)
        said.append(expand(r, r.choice(_FREE_SAY)).format(k=key.replace("_", " "), v=value, s=subject))
        record[key], kinds[key] = value, kind
    if len(record) > 2 and r.random() < 0.3:
        lost = r.choice(list(record))
        del record[lost], kinds[lost]
    glue = r.choice((" ", "\n", " "))
    return glue.join(said), record, kinds


_FREE_KEYS = (
    "size|weight|material|owner|status|owner|level|score|colour|shape|speed|height|width|team|number|"
    "code|group|category|type|model|version|length|language|floor|room|seat|gate|total|sender|"
    "receiver|subject|topic|id|key|value|label|author|origin|destination|distance|temperature|"
    "user_id|order_id|first_name|last_name|street|zip_code|start_date|file_name|error_code"
).split("|")
_FREE_SAY = (
    "The {k} is {v}.", "The {k} of the {s} is {v}.", "{k}: {v}", "Its {k} is {v}.", "{k} = {v}",
    "The {k} [was|is] {v}.",
)


def schema_of(r: Random, kinds: dict[str, str]) -> dict:
    """A JSON schema for the keys, in one of the shapes people write."""
    props: dict[str, dict] = {}
    for key, kind in kinds.items():
        props[key] = {"type": kind}
        if kind == "array":
            props[key]["items"] = {"type": "string"}
        if kind == "string" and key in ("color", "colour", "favorite_color") and r.random() < 0.4:
            props[key]["enum"] = list(words.COLOURS)
        if key in ("day", "weekday") and r.random() < 0.5:
            props[key]["enum"] = list(words.DAYS)
        if r.random() < 0.1:
            props[key]["description"] = f"The {key.replace('_', ' ')}"
        if r.random() < 0.15:
            props[key] = {"title": key.replace("_", " ").title(), **props[key]}
    schema: dict = {"type": "object", "properties": props}
    if r.random() < 0.8:
        schema["required"] = list(kinds)
    if r.random() < 0.2:
        schema["additionalProperties"] = False
    if r.random() < 0.25:
        schema = {"title": r.choice(("Person", "Record", "Item", "Answer", "Event")), **schema}
    if r.random() < 0.2:
        schema = {k: schema[k] for k in sorted(schema)}
    return schema


_WITH_SCHEMA = (
    "[Extract|Get|Read] the [data|information|record|details] from the text[| as JSON][.|:]\n"
    "[Schema|JSON schema]: {s}\nText: {t}",
    "{t}\n\n[Extract|Return|Give me] JSON [that follows|that matches|following] this schema: {s}",
    "{t}\n[Answer with|Reply with|Return|Output] [only |]a JSON object for this schema:\n{s}",
    "[JSON schema|Schema|Use this schema]: {s}\n\n{t}",
    "[Fill|Use] this JSON schema from the text.\n{s}\n\n{t}",
    "Text: {t}\nSchema: {s}\nJSON:",
    "[Turn|Convert] this [text|sentence] into JSON [with|following|that fits] the schema {s}: {t}",
)
_WITH_KEYS = (
    "[Extract|Give me|Return|Get] the {k} as [JSON|a JSON object][.|:] [|Text: ]{t}",
    "{t} [Give|Return|Extract] the {k} as JSON.",
    "{t}\n[Return|Answer with|Reply with|Output] [a JSON object|JSON] with [the keys|keys|fields] {k}.",
    "[Answer in JSON|JSON] with [the keys|keys] {k}: {t}",
    "[Extract|Find] {k} from this text[| and answer in JSON| as JSON]: {t}",
    "{t}\n\n[Extract|Get] the {k} as JSON",
)
_SYSTEM = (
    "[Extract|Answer with|Return|Reply with] JSON that [follows|matches] this schema: {s}",
    "You extract data. Answer [only |]with JSON for this schema:\n{s}",
    "You are a helpful assistant. [Answer in JSON|Output JSON]. Schema: {s}",
)


def extract(r: Random, held: bool) -> Talk:
    """A text and what is wanted from it; the answer is the JSON object alone."""
    text, record, kinds = (_record if r.random() < 0.8 else _free_record)(r, held)
    answer = json.dumps(record, ensure_ascii=False)
    check = Check("json")
    system = ""
    roll = r.random()
    if roll < 0.62:
        schema = schema_of(r, kinds)
        indent = 2 if r.random() < 0.12 else None
        shown = json.dumps(schema, ensure_ascii=False, indent=indent)
        if roll < 0.12:
            system = expand(r, r.choice(_SYSTEM)).replace("{s}", shown)
            user = r.choice((text, f"Text: {text}", f"Extract: {text}"))
        else:
            form = expand(r, r.choice(_WITH_SCHEMA))
            user = form.replace("{s}", shown).replace("{t}", text)
    else:
        keys = list(record)
        listed = ", ".join(keys[:-1]) + (" and " if len(keys) > 1 else "") + keys[-1]
        if r.random() < 0.3:
            listed = ", ".join(keys)
        if r.random() < 0.15 and "array" not in kinds.values() and "boolean" not in kinds.values():
            text = ", ".join(str(v) for v in record.values())
            form = expand(r, "[Give me|Write|Create|Make] [a JSON object|JSON] with {k} for {t}[.|]")
            user = form.replace("{k}", listed).replace("{t}", text)
            return Talk([("user", user), ("assistant", answer)], check)
        user = expand(r, r.choice(_WITH_KEYS)).replace("{k}", listed).replace("{t}", text)
    return Talk([("user", user), ("assistant", answer)], check, system=system)


_EXAMPLES: dict[str, Value] = {
    "name": "Anna", "age": 30, "city": "Paris", "job": "teacher", "country": "France", "hobby": "chess",
    "email": "anna@example.com", "colour": "blue", "pet": "cat", "product": "lamp", "price": 20,
    "quantity": 5, "event": "concert", "day": "Monday", "time": "10:00", "guests": 50, "title": "Home",
    "author": "Anna Smith", "year": 2000, "student": True, "available": True, "hobbies": ["chess", "tennis"],
    "brand": "Acme", "host": "Anna", "pages": 100,
}  # fmt: skip
_INVENT = (
    "[Generate|Make up|Write|Give me|Create] [an example|a record|a JSON object|some JSON|JSON] "
    "[for|that matches|that follows|following] this schema: {s}",
    "[Generate|Make up|Write|Give me|Create] a [person|record|character|user][|.|:] {s}",
    "{s}\n[Give me|Write|Generate] [an example|one example|JSON].",
    "[Generate|Create|Give me|Write|Make] [a|a random|an example of a] JSON object with [the keys |]{k}[.|]",
    "[Generate|Create|Give me|Make up] [a random |a |an example ]{d} [in|as] JSON with {k}[.|]",
)


def invent(r: Random, held: bool) -> Talk:
    """A request to invent a JSON object for a schema or for keys, without a text to read."""
    domain, head = r.choice(_DOMAINS)
    keys = [head, *r.sample([k for k in domain if k != head], r.randint(0, 3))]
    if r.random() < 0.3:
        r.shuffle(keys)
    record: dict[str, Value] = {}
    kinds: dict[str, str] = {}
    for k in keys:
        key = r.choice(domain[k].keys)
        if key not in record:
            record[key], kinds[key] = _EXAMPLES[k], domain[k].kind
    if is_held(" ".join(record)) != held:
        return invent(r, held)
    listed = ", ".join(record)
    kind = {"name": "person", "product": "product", "event": "event", "title": "book"}[head]
    form = expand(r, r.choice(_INVENT)).replace("{k}", listed).replace("{d}", kind)
    user = form.replace("{s}", json.dumps(schema_of(r, kinds), ensure_ascii=False))
    answer = json.dumps(record, ensure_ascii=False)
    return Talk([("user", user), ("assistant", answer)], Check("json"))
