"""The catalog knows every architecture, and the documentation says what it says."""

from __future__ import annotations

from quire.models.catalog import EXAMPLES, families
from quire.models.registry import ModelRegistry, supported_families
from tools import models_doc


def test_every_architecture_is_in_one_family_with_an_example() -> None:
    found = supported_families()
    listed = [name for family in found for name in family.architectures]
    assert sorted(listed) == ModelRegistry.get_supported_archs()
    without = [family.name for family in found if not family.examples]
    assert without == [], "give these families an example in models/catalog.py"
    assert {family.name for family in found} == EXAMPLES.keys()
    assert all(family.special.endswith(".") for family in found)


def test_what_is_special_is_the_head_of_the_family_s_file() -> None:
    (family,) = families([("OPTForCausalLM", "quire.models.architectures.opt:opt")])
    assert (family.name, family.architectures) == ("opt", ("OPTForCausalLM",))
    assert family.special.startswith("OPT: learned positions")
    assert "facebook/opt-125m" in family.examples


def test_users_models_stand_last_under_their_module() -> None:
    places = [
        ("ZForCausalLM", "mine.z:plan"),
        ("OPTForCausalLM", "quire.models.architectures.opt:opt"),
    ]
    _, own = families(places)
    assert (own.name, own.architectures, own.examples) == ("mine.z", ("ZForCausalLM",), ())


def test_the_page_is_what_the_code_says() -> None:
    page = models_doc.PAGE.read_text(encoding="utf-8")
    assert models_doc.written(page) == page, "run: python tools/models_doc.py"
