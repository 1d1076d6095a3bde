from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import Any

import pytest

from quire.request import BeamSearch
from quire.sampling_limits import NOT_BUILT, RULES
from quire.sampling_params import (
    BeamSearchParams,
    GuidedDecodingParams,
    RequestOutputKind,
    SamplingParams,
    SamplingType,
    StructuredOutputsParams,
)
from quire.shown import shown
from quire.structured import GrammarSpec

# Name and default of every field in the order of the interface that users know.
KNOWN = """
n=1 presence_penalty=0.0 frequency_penalty=0.0 repetition_penalty=1.0 temperature=1.0
watermarking=None top_p=1.0 top_k=0 min_p=0.0 seed=None stop=None stop_token_ids=None
ignore_eos=False max_tokens=16 min_tokens=0 logprobs=None prompt_logprobs=None
prompt_logprob_token_ids=None prompt_logprob_start=None logprob_token_ids=None flat_logprobs=False
detokenize=True skip_special_tokens=True spaces_between_special_tokens=True
include_stop_str_in_output=False output_kind=RequestOutputKind.CUMULATIVE stream_interval=None
skip_clone=False output_text_buffer_length=0 structured_outputs=None logit_bias=None
allowed_token_ids=None extra_args=None bad_words=None skip_reading_prefix_cache=None
thinking_token_budget=None repetition_detection=None routed_experts_prompt_start=0
trace_decode_token_ids=None best_of=None guided_decoding=None logits_processors=None
truncate_prompt_tokens=None use_beam_search=False early_stopping=False length_penalty=1.0
"""


def test_signature_has_the_known_names_defaults_and_order() -> None:
    for target in (SamplingParams, SamplingParams.__init__):
        parameters = [
            one for one in inspect.signature(target).parameters.values() if one.name != "self"
        ]
        found = [f"{one.name}={one.default}" for one in parameters]
        assert found == KNOWN.split()
        assert {one.kind for one in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def described(cls: type) -> dict[str, str]:
    """What the docstring says of each field."""
    text = inspect.getdoc(cls) or ""
    *_, not_built = text.split("Not supported yet;")
    entries = re.findall(r"^(\w+): (.*(?:\n +.*)*)", text, flags=re.MULTILINE)
    found = {name: " ".join(words.split()) for name, words in entries}
    return found | {name: "not supported yet" for name in NOT_BUILT if name in not_built}


@pytest.mark.parametrize("cls", [SamplingParams, BeamSearchParams])
def test_every_parameter_is_described_with_its_limit(cls: type) -> None:
    descriptions = described(cls)
    assert descriptions.keys() == {one.name for one in fields(cls)}
    for name, rule in RULES.items():
        if name in descriptions and rule.limit != "True or False":
            assert f"; {rule.limit}" in descriptions[name], name


def test_positional_arguments_keep_their_order() -> None:
    params = SamplingParams(2, 0.1, 0.2, 1.3, 0.7)
    assert (params.n, params.presence_penalty, params.temperature) == (2, 0.1, 0.7)


def test_repr_names_the_parameters() -> None:
    assert repr(SamplingParams(n=3)).startswith("SamplingParams(n=3, presence_penalty=0.0, ")


@pytest.mark.parametrize(
    ("cls", "name", "meant"),
    [
        (SamplingParams, "temprature", "temperature"),
        (SamplingParams, "max_new_tokens", "max_tokens"),
        (BeamSearchParams, "beam_widht", "beam_width"),
    ],
)
def test_unknown_name_says_what_may_be_meant(cls: type, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"^{cls.__name__}: .*'{name}'; did you mean {meant}"):
        cls(**{name: 1})


WRONG = [
    ("n", 0),
    ("n", 16385),
    ("n", 1.5),
    ("n", True),
    ("best_of", 0),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("frequency_penalty", float("nan")),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", float("inf")),
    ("repetition_penalty", 1e7),
    ("repetition_penalty", 1e-7),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", float("nan")),
    ("temperature", "hot"),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_k", -2),
    ("top_k", 3.5),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("seed", 2**64),
    ("seed", "x"),
    ("stop", [""]),
    ("stop", ""),
    ("stop", [3]),
    ("stop", 3),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", ["a"]),
    ("stop_token_ids", [[1]]),
    ("bad_words", [["a"]]),
    ("structured_outputs", '{"type": "object"}'),
    ("guided_decoding", 7),
    ("max_tokens", 0),
    ("min_tokens", -1),
    ("logprobs", -2),
    ("prompt_logprobs", -2),
    ("stream_interval", 0),
    ("thinking_token_budget", -2),
    ("logit_bias", {"a": 1.0}),
    ("logit_bias", {1: float("nan")}),
    ("logit_bias", {1: 1e39}),  # infinite in float32
    ("logit_bias", {1: "2"}),
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", {1: 10**400}),
    ("logit_bias", [1]),
    ("allowed_token_ids", []),
    ("allowed_token_ids", [-4]),
    ("bad_words", [""]),
    ("bad_words", "word"),
    ("logits_processors", [3]),
    ("truncate_prompt_tokens", 0),
    ("truncate_prompt_tokens", -2),
    ("length_penalty", float("inf")),
    ("early_stopping", "sometimes"),
    ("output_kind", "delta"),
    ("ignore_eos", "yes"),
    ("use_beam_search", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda one: repr(one))
def test_wrong_value_is_refused_with_value_limit_and_remedy(name: str, value: object) -> None:
    with pytest.raises(ValueError) as refused:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    message = str(refused.value)
    assert message.startswith(f"{name} must be ")
    got = [value] if name == "stop" and isinstance(value, str) else value
    assert f", got {shown(got)}; " in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["temperature", "logit_bias", "stop_token_ids", "extra_args"])
@pytest.mark.parametrize("make", [SamplingParams, SamplingParams.from_optional])
def test_a_refused_value_is_shortened(name: str, make: Any) -> None:
    value = dict.fromkeys(range(20_000), "x")
    with pytest.raises(ValueError, match=rf"{name} .*, got \{{0: 'x', 1: 'x'.*\.\.\.") as refused:
        make(**{name: value})
    assert len(str(refused.value)) < 300


def test_every_rule_is_tried() -> None:
    tried = {name for name, _ in WRONG}
    booleans = {"detokenize", "skip_special_tokens", "spaces_between_special_tokens"}
    assert set(RULES) - tried == booleans | {"include_stop_str_in_output"}


def test_defaults_are_right_and_so_need_not_be_looked_at() -> None:
    plain = vars(SamplingParams())
    assert [name for name, rule in RULES.items() if not rule.accepts(plain[name])] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0, "n": 4},
        {"temperature": 2.0, "top_p": 1.0, "top_k": -1, "min_p": 1.0},
        {"presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 0.01},
        {"n": 16384, "seed": -(2**63), "max_tokens": None, "min_tokens": 1000},
        {"logprobs": -1, "prompt_logprobs": 0, "logit_bias": {0: -float("inf"), 5: 3}},
        {"n": 2, "best_of": 5, "truncate_prompt_tokens": -1, "stop": []},
    ],
    ids=str,
)
def test_limits_themselves_are_accepted(fields: dict[str, Any]) -> None:
    params = SamplingParams(**fields)
    for name, value in fields.items():
        assert getattr(params, name) == value


def test_lists_are_there_to_be_added_to() -> None:
    names = ("stop", "stop_token_ids", "bad_words")
    params: Any = SamplingParams()
    for name in names:
        assert getattr(params, name) == [] == getattr(SamplingParams(**{name: None}), name)
    params.stop.append(" was")
    params.stop_token_ids.append(3)
    params.verify()
    assert params == SamplingParams(stop=" was", stop_token_ids=[3])
    assert params.clone().stop is not params.stop
    assert SamplingParams().stop == []
    params = SamplingParams(stop=("a",), stop_token_ids=(3,), bad_words=("b",))  # type: ignore[arg-type]
    assert [getattr(params, name) for name in names] == [["a"], [3], ["b"]]


def test_a_wrong_number_of_logprobs_names_the_limit_of_the_engine() -> None:
    with pytest.raises(ValueError, match=r"-1, the whole vocabulary, needs .* max_logprobs=-1"):
        SamplingParams(logprobs=-3)


def test_aliases_of_values_are_brought_to_one_form() -> None:
    params = SamplingParams(
        stop="end",
        seed=-1,
        logprobs=True,
        prompt_logprobs=False,
        stop_token_ids=[3, 1, 3],
        bad_words=["a", "b", "a"],
    )
    assert params.stop == ["end"]
    assert params.seed is None
    assert (params.logprobs, params.prompt_logprobs) == (1, None)
    assert params.stop_token_ids == [3, 1]
    assert params.bad_words == ["a", "b"]


def test_parameters_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="min_tokens must be at most max_tokens=3, got 5"):
        SamplingParams(max_tokens=3, min_tokens=5)
    with pytest.raises(ValueError, match="best_of must be at least n=3, got 2"):
        SamplingParams(n=3, best_of=2)
    with pytest.raises(ValueError, match=r"stop strings need text.*stop_token_ids"):
        SamplingParams(stop="x", detokenize=False)


SET_BUT_NOT_BUILT: dict[str, object] = {
    "watermarking": True,
    "prompt_logprob_token_ids": [[1, 2]],
    "prompt_logprob_start": 0,
    "logprob_token_ids": [1],
    "flat_logprobs": True,
    "structured_outputs": StructuredOutputsParams(json={"type": "object"}),
    "guided_decoding": GuidedDecodingParams(regex="a+"),
    "extra_args": {"a": 1},
    "thinking_token_budget": 0,
    "repetition_detection": object(),
    "routed_experts_prompt_start": 2,
    "trace_decode_token_ids": [1],
    "output_text_buffer_length": 3,
}


@pytest.mark.parametrize("name", NOT_BUILT)
def test_parameter_that_is_not_built_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is not supported yet, got .* leave {name}"):
        SamplingParams(**{name: SET_BUT_NOT_BUILT[name]})  # type: ignore[arg-type]


def test_parameter_that_is_not_built_has_a_remedy() -> None:
    with pytest.raises(ValueError, match="use repetition_penalty or frequency_penalty; leave rep"):
        SamplingParams(repetition_detection=object())


def test_parameter_that_is_not_built_may_be_unset_in_words() -> None:
    params = SamplingParams(watermarking=False, extra_args=None, routed_experts_prompt_start=0)
    assert params == SamplingParams(watermarking=False)
    SamplingParams(extra_args={}, logprob_token_ids=[])


def test_change_after_construction_is_checked_by_verify() -> None:
    params = SamplingParams()
    params.top_p = 7.0
    with pytest.raises(ValueError, match=r"top_p must be a number in \(0, 1\], got 7.0"):
        params.verify()


def test_from_optional_takes_none_for_the_default() -> None:
    params = SamplingParams.from_optional(
        n=None, temperature=None, top_p=0.5, max_tokens=None, logit_bias={"7": 500, 8: -300.0}
    )
    assert (params.n, params.temperature, params.top_p) == (1, 1.0, 0.5)
    assert params.max_tokens is None
    assert params.logit_bias == {7: 100.0, 8: -100.0}
    assert SamplingParams.from_optional().max_tokens == 16
    with pytest.raises(ValueError, match="logit_bias must be a dict"):
        SamplingParams.from_optional(logit_bias={"seven": 1})


def test_clone_is_independent_but_shares_functions() -> None:
    class Uncopyable:
        def __call__(self, ids: list[int], logits: Any) -> Any:
            return logits

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies")

    function = Uncopyable()
    params = SamplingParams(stop=["a"], logits_processors=[function])
    other = params.clone()
    assert other == params and other is not params
    assert other.logits_processors == [function]
    assert isinstance(other.stop, list)
    other.stop.append("b")
    assert params.stop == ["a"]


def test_clone_of_a_subclass_has_its_own_containers_and_attributes() -> None:
    params = GenerationConfig(logit_bias={1: 2.0})
    params.remark = {"of": ["the user"]}  # type: ignore[attr-defined]
    other: Any = params.clone()
    assert type(other) is GenerationConfig
    assert other == params
    other.logit_bias[2] = 1.0
    other.remark["of"].append("and more")
    assert params.logit_bias == {1: 2.0}
    assert params.remark == {"of": ["the user"]}  # type: ignore[attr-defined]


def test_copies_and_pickles_are_equal() -> None:
    params = SamplingParams(temperature=0.3, stop=["x"], logit_bias={1: 2.0})
    assert copy.deepcopy(params) == params
    assert pickle.loads(pickle.dumps(params)) == params


def test_sampling_type_follows_temperature_and_seed() -> None:
    assert SamplingParams(temperature=0).sampling_type is SamplingType.GREEDY
    assert SamplingParams().sampling_type is SamplingType.RANDOM
    assert SamplingParams(seed=3).sampling_type is SamplingType.RANDOM_SEED
    assert [int(one) for one in SamplingType] == [0, 1, 2]


class GenerationConfig(SamplingParams):
    """A subclass as wrappers write it: undecorated, annotated, with its own ``__setattr__``."""

    max_tokens: int | None = None
    top_k: int = 50
    num_beams: int = 1

    def __post_init__(self) -> None:
        if self.stop is None:
            self.stop = []
        super().__post_init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("max_tokens" if name == "max_new_tokens" else name, value)


def test_annotations_of_a_subclass_are_its_fields_and_defaults() -> None:
    config = GenerationConfig(temperature=0.5, num_beams=4)
    assert (config.max_tokens, config.top_k, config.stop) == (None, 50, [])
    assert config.num_beams == 4
    config.max_new_tokens = 9  # type: ignore[attr-defined]
    assert config.max_tokens == 9
    assert isinstance(config.stop, list)
    config.stop.append("<|im_end|>")
    other = copy.deepcopy(config)
    assert other == config and type(other) is GenerationConfig
    assert "top_k" in GenerationConfig.__annotations__
    assert repr(config).startswith("GenerationConfig(n=1, ")
    with pytest.raises(ValueError, match="top_k must be"):
        GenerationConfig(top_k=-3)


def test_subclass_with_its_own_constructor_or_decorator_works() -> None:
    class Wrapped(SamplingParams):
        def __init__(self, max_new_tokens: int = 64, **fields: Any) -> None:
            super().__init__(max_tokens=max_new_tokens, **fields)

    @dataclass
    class Decorated(SamplingParams):
        length: int = 3

    assert Wrapped(5, temperature=0.2).max_tokens == 5
    assert Decorated(length=4).length == 4
    with pytest.raises(TypeError, match="did you mean temperature"):
        Wrapped(5, temprature=0.2)
    with pytest.raises(
        TypeError, match="Decorated: unknown argument 'lenght'; did you mean length"
    ):
        Decorated(lenght=4)  # type: ignore[call-arg]


def test_type_error_inside_a_subclass_is_its_own() -> None:
    class Broken(SamplingParams):
        def __post_init__(self) -> None:
            raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        Broken(n=2)


def test_beam_search_is_read_from_sampling_params() -> None:
    assert SamplingParams(n=3).beam is None
    params = SamplingParams(
        n=2, best_of=4, use_beam_search=True, length_penalty=0.5, early_stopping="never"
    )
    assert params.beam == BeamSearch(width=4, length_penalty=0.5, early_stopping="never")


def test_beam_parameters_need_beam_search_and_filters_have_no_place_in_it() -> None:
    with pytest.raises(ValueError, match="early_stopping needs beam search, got True"):
        SamplingParams(early_stopping=True)
    with pytest.raises(ValueError, match=r"top_p has no effect in beam search, got 0\.5"):
        SamplingParams(use_beam_search=True, top_p=0.5)
    with pytest.raises(ValueError, match="prompt_logprobs has no effect in beam search, got 1"):
        SamplingParams(use_beam_search=True, prompt_logprobs=1)


def test_beam_search_params_are_sampling_params_with_beams() -> None:
    params = BeamSearchParams(4, 10, True, 0.0, 2.0, True, True)
    sampling = params.to_sampling_params()
    assert sampling.beam == BeamSearch(width=4, length_penalty=2.0, early_stopping=True)
    assert (sampling.n, sampling.max_tokens, sampling.ignore_eos) == (4, 10, True)
    assert sampling.include_stop_str_in_output is True
    assert BeamSearchParams(beam_width=1, max_tokens=1).temperature == 0.0
    with pytest.raises(ValueError, match="beam_width must be an integer from 1"):
        BeamSearchParams(beam_width=0, max_tokens=5)
    with pytest.raises(ValueError, match="max_tokens must be"):
        BeamSearchParams(beam_width=2, max_tokens=0)


def test_beams_may_be_constrained() -> None:
    params = BeamSearchParams(2, 5, structured_outputs={"regex": "a+"}, skip_special_tokens=False)
    sampling = params.to_sampling_params()
    assert sampling.grammar == GrammarSpec(kind="regex", source="a+")
    assert sampling.skip_special_tokens is False
    tokens = BeamSearchParams(2, 5, allowed_token_ids=[7, 8]).to_sampling_params()
    assert (tokens.allowed_token_ids, tokens.skip_special_tokens) == ([7, 8], True)
    with pytest.raises(ValueError, match="watermarking is not supported yet, got True"):
        BeamSearchParams(2, 5, watermarking=True)
    with pytest.raises(ValueError, match="allowed_token_ids must be a non-empty list"):
        BeamSearchParams(2, 5, allowed_token_ids=[])


def test_output_kinds_have_their_known_values() -> None:
    assert [kind.value for kind in RequestOutputKind] == [0, 1, 2]


def test_module_does_not_import_torch() -> None:
    code = "import quire.row_sampling, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_empty_constraint_is_refused_and_a_dict_is_read_once() -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        SamplingParams(structured_outputs={})
    params = SamplingParams(structured_outputs={"regex": "a"})
    assert params.structured_outputs == StructuredOutputsParams(regex="a")
    assert params.is_constrained and not SamplingParams().is_constrained


def test_names_of_other_engines_are_read_or_explained() -> None:
    assert SamplingParams(stop_token_ids=[3, 4]).all_stop_token_ids == {3, 4}
    assert SamplingParams().all_stop_token_ids == set()
    with pytest.raises(AttributeError, match="update_from_generation_config is not built yet"):
        SamplingParams().update_from_generation_config({}, 2)
