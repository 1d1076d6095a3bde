"""Logits processors by name: what a name may be, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire import SamplingParams
from quire.engine.messages import AddRequest, decode_command, encode
from quire.named_processors import GROUP, NamedProcessor, functions_and_names
from quire.request import EngineRequest, RowSampling
from quire.row_sampling import to_row_sampling

HERE = "tests.fakes.processors"
FAVOUR = {"qualname": f"{HERE}.Favour", "args": [4], "kwargs": {"bias": 9.0}}


def row_sampling(*processors: Any) -> RowSampling:
    params = SamplingParams(logits_processors=list(processors))
    return to_row_sampling(params, eos_token_ids=(), vocab_size=10, max_logprobs=0, seed=0)


@pytest.mark.parametrize("name", [f"{HERE}.favour_four", f"{HERE}:favour_four"])
def test_a_name_is_a_path_of_modules(name: str) -> None:
    from tests.fakes.processors import favour_four

    assert NamedProcessor.parse(name).load() is favour_four


def test_an_object_is_called_for_the_function() -> None:
    made = NamedProcessor.parse(FAVOUR).load()
    assert (made.token, made.bias) == (4, 9.0)  # type: ignore[attr-defined]
    assert made is not NamedProcessor.parse(FAVOUR).load()  # each row has its own


def test_a_plug_in_may_register_a_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "scholar_processors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scholar-processors\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nfour = {HERE}:favour_four\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert NamedProcessor.parse("four").load().__name__ == "favour_four"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "a logits processor is a name, or"),
        ("", "a logits processor is a name, or"),
        ({"name": "x"}, "a logits processor is a name, or"),
        ({"qualname": "x", "arguments": []}, "has no 'arguments'"),
        ({"qualname": "x", "args": 3}, "args must be a list"),
        ("no_such_word", "neither registered nor a path of modules"),
        ("no.such.module", "ModuleNotFoundError: No module named 'no'"),
        (f"{HERE}.nothing", "AttributeError"),
        (f"{HERE}.NUMBER", "is a int, not a function"),
        (f"{HERE}.Favour", r"Favour' is a class, which has to be made; name it as \{\"qualname\""),
        ({**FAVOUR, "args": []}, "cannot be made of args=.*TypeError"),
        ({"qualname": f"{HERE}.make_nothing"}, "is a NoneType, not a function"),
    ],
)
def test_what_cannot_be_had_is_one_clear_error(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NamedProcessor.parse(value).load()


def test_a_class_is_no_function_either() -> None:
    from tests.fakes.processors import Favour

    with pytest.raises(ValueError, match=r"Favour is a class.*pass an object of it, Favour\("):
        functions_and_names([Favour])


def test_a_class_of_batches_is_told_to_be_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfBatches:
        def apply(self, logits: Any) -> Any:
            return logits

    monkeypatch.setattr("tests.fakes.processors.OfBatches", OfBatches, raising=False)
    for processor in (OfBatches, f"{HERE}.OfBatches"):
        with pytest.raises(ValueError, match=r"OfBatches.* is no function: .*; write a function"):
            functions_and_names([processor])


def test_names_cross_the_border_of_a_process() -> None:
    sampling = row_sampling(FAVOUR, f"{HERE}.favour_four")
    assert sampling.runs_user_code and not sampling.logits_processors
    sent = AddRequest(
        EngineRequest(request_id="a", prompt_token_ids=[1], sampling=sampling, max_tokens=1)
    )
    assert decode_command(encode(sent)) == sent
    assert [one.qualname for one in sampling.named_processors] == [
        *(f"{HERE}.Favour", f"{HERE}.favour_four"),
    ]


def test_names_beside_functions_become_functions_in_the_users_order() -> None:
    first: Callable[..., Any] = max
    functions, names = functions_and_names([first, f"{HERE}.favour_four", min])
    assert [one.__name__ for one in functions] == ["max", "favour_four", "min"]
    assert names == ()


def test_a_name_that_cannot_be_had_is_refused_with_the_request() -> None:
    with pytest.raises(ValueError, match=r"'no\.such' cannot be loaded"):
        row_sampling("no.such")
    with pytest.raises(ValueError, match="logits_processors must be a list of functions or names"):
        SamplingParams(logits_processors=[3])  # type: ignore[list-item]
    assert not row_sampling().runs_user_code
