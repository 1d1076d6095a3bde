"""Which keywords of a JSON schema are honoured, as data.

What is not here is refused by name: JSON Schema lets validators ignore what they do not know, but
an output that is said to follow a schema must follow all of it.
"""

from __future__ import annotations

# Say something about a value, and nothing about which values there are.
ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "$comment", "$schema"),
        *("deprecated", "readOnly", "writeOnly", "externalDocs", "xml", "discriminator"),
        *("contentEncoding", "contentMediaType", "contentSchema", "$vocabulary"),
        *("propertyOrdering", "strict"),
    }
)
NAMES = frozenset({"$id", "$anchor", "id"})
SCHEMA = frozenset({"items", "additionalProperties", "additionalItems", "unevaluatedProperties"})
SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})  # lists of them
SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)
OTHERS = frozenset({"type", "enum", "const", "$ref", "pattern", "format", "required"})
HONOURED = ANNOTATIONS | NAMES | SCHEMA | SCHEMAS | SCHEMAS_BY_NAME | NUMBERS | COUNTS | OTHERS

FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
        *("uri", "unknown"),
    }
)
TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})

# Keywords of the standard that no grammar of ours can follow, and what to write instead.
REFUSED: dict[str, str] = {
    "not": "list what is allowed by enum or anyOf",
    "if": "write the cases as anyOf",
    "then": "write the cases as anyOf",
    "else": "write the cases as anyOf",
    "contains": "describe every item by items",
    "minContains": "describe every item by items",
    "maxContains": "describe every item by items",
    "uniqueItems": "use one boolean property for each item, or drop doubles yourself",
    "propertyNames": "use patternProperties with additionalProperties false",
    "dependentRequired": "write the cases as anyOf",
    "dependentSchemas": "write the cases as anyOf",
    "dependencies": "write the cases as anyOf",
    "unevaluatedItems": "use prefixItems with items false",
    "$dynamicRef": "use $ref",
    "$dynamicAnchor": "use $ref",
    "$recursiveRef": "use $ref",
    "$recursiveAnchor": "use $ref",
    "nullable": 'use type ["...", "null"]',
}

# Compiled apart first, where they may take as long as they like: see `canary.py`.
SLOW = frozenset({"pattern", "patternProperties", "multipleOf", "allOf"})

# Day by day, with leap years; no year 0, as Python's calendar has none.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = (
    "(?:(?:[1-9][0-9]|0[1-9])(?:0[48]|[2468][048]|[13579][26])"
    "|00(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
)
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_CLOCK})"
FORMAT_PATTERNS: dict[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
}

# Characters in all, which patterns of the parts do not bound (RFC 1035, section 2.3.4).
FORMAT_LENGTHS = {"hostname": 253}
