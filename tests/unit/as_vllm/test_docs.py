from __future__ import annotations

import re

from quire.compat import VERDICTS
from quire.env import REGISTRY
from quire.server.fields import HARMLESS, REFUSED
from tools import compat_docs


def test_the_tables_of_the_docs_are_up_to_date() -> None:
    """If not: python tools/compat_docs.py"""
    text = compat_docs.PAGE.read_text(encoding="utf-8")
    assert compat_docs.written(text) == text


def test_every_name_with_a_verdict_is_in_them() -> None:
    named = set(re.findall(r"`(\w+)`", compat_docs.PAGE.read_text(encoding="utf-8")))
    variables = {name for one in REGISTRY for name in one.names}
    assert {*VERDICTS, *HARMLESS, *REFUSED, *variables} <= named
