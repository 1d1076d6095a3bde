import pytest

from quire.models.context_length import (
    DEFAULT_LENGTH,
    ContextLength,
    derived_length,
    resolve_context_length,
)


def resolve(wanted: int | str | None, positions: int | None = None) -> ContextLength:
    return resolve_context_length(
        wanted,
        config={"max_position_embeddings": 1000},
        tokenizer_config={},
        num_learned_positions=positions,
    )


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024, "n_ctx": 512}, 512),
        ({"seq_length": 32768}, 32768),
        ({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}}, 400),
        ({"max_position_embeddings": 100, "rope_scaling": {"type": "dynamic", "factor": 2}}, 100),
        ({"max_position_embeddings": 400, "seq_length": 100, "use_dynamic_ntk": True}, 100),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        (  # the product is in max_position_embeddings already
            {
                "max_position_embeddings": 163840,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 40,
                    "original_max_position_embeddings": 4096,
                },
            },
            163840,
        ),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            131072,
        ),
        (  # beside the scaling, where other configs have it inside
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
            },
            131072,
        ),
        (  # Gemma 3, in its older and its newer spelling
            {
                "max_position_embeddings": 131072,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "model_type": "gemma3_text",
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            },
            131072,
        ),
        (  # the older spelling is an override of the newer one
            {
                "max_position_embeddings": 100,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
                "rope_scaling": {"type": "linear", "factor": 4.0},
            },
            400,
        ),
    ],
)
def test_length_from_the_config(config: dict[str, object], length: int) -> None:
    assert derived_length(config, {"model_max_length": 77})[0] == length


@pytest.mark.parametrize("factor", [0.0, -2.0])
@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_a_factor_that_is_none_is_refused_by_name(kind: str, factor: float) -> None:
    scaling = {"rope_type": kind, "factor": factor}
    per_type = {"full_attention": scaling, "sliding_attention": {}}
    for key, rope in (
        ("rope_scaling", {"rope_scaling": scaling}),
        ("rope_parameters", {"rope_parameters": scaling}),
        ("rope_parameters.full_attention", {"rope_parameters": per_type}),
    ):
        message = rf"^config key '{key}\.factor' = {factor} must be a number above 0$"
        with pytest.raises(ValueError, match=message):
            derived_length({"max_position_embeddings": 100, **rope}, {})


def test_a_factor_that_is_null_leaves_the_length_as_it_is() -> None:
    scaling = {"type": "yarn", "factor": None, "original_max_position_embeddings": 25}
    config = {"max_position_embeddings": 100, "rope_scaling": scaling}
    assert derived_length(config, {})[0] == 100


def test_length_from_the_tokenizer_is_the_second_choice() -> None:
    assert derived_length({}, {"model_max_length": 512})[0] == 512
    assert derived_length({}, {"model_max_length": 1e30})[0] == DEFAULT_LENGTH


@pytest.mark.parametrize("value", ["512", 0, -1, 0.5, [512], False, True, float("nan")])
def test_a_length_that_is_none_is_refused_by_name(value: object) -> None:
    message = r"key 'n_positions' = .* must be a number of tokens of at least 1; set it with --hf-"
    with pytest.raises(ValueError, match=message):
        derived_length({"max_position_embeddings": 100, "n_positions": value}, {})
    with pytest.raises(ValueError, match=r"'model_max_length' = .* must be a number of tokens"):
        derived_length({}, {"model_max_length": value})


@pytest.mark.parametrize("value", [None, 1e30, 10**30, float("inf")])
def test_null_and_no_limit_say_nothing(value: object) -> None:
    assert derived_length({"n_positions": value, "n_ctx": 512.0}, {})[0] == 512
    assert derived_length({"n_positions": value}, {"model_max_length": value})[0] == DEFAULT_LENGTH


def test_default_is_the_models_own() -> None:
    assert resolve(None) == ContextLength(longest=1000, source="config")
    assert resolve("auto") == ContextLength(longest=1000, source="auto")
    assert resolve(100) == ContextLength(longest=100, source="user")


def test_too_long_names_value_limit_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        r"max_model_len=1001 is larger than the model's own limit of 1000 "
        r"\(max_position_embeddings in config.json\); use 1000 or less, or set "
        r"QUIRE_ALLOW_LONG_MAX_MODEL_LEN=1"
    )
    with pytest.raises(ValueError, match=message):
        resolve(1001)
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert resolve(1001).longest == 1001


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": 1000, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"max_position_embeddings": 2000, "seq_length": 1000, "use_dynamic_ntk": True},
        {"max_position_embeddings": 1000, "model_max_length": 2000},
    ],
    ids=["dynamic", "qwen-1", "command-r"],
)
def test_lengths_that_must_be_asked_for(config: dict[str, object]) -> None:
    def resolved(wanted: int | None) -> int:
        return resolve_context_length(
            wanted, config=config, tokenizer_config={}, num_learned_positions=None
        ).longest

    assert resolved(None) == 1000
    assert resolved(2000) == 2000
    with pytest.raises(ValueError, match="limit of 2000"):
        resolved(2001)


def test_learned_positions_cannot_be_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_ALLOW_LONG_MAX_MODEL_LEN", "1")
    with pytest.raises(ValueError, match="more than the 1000 positions that the model has learned"):
        resolve(1001, positions=1000)


@pytest.mark.parametrize("wanted", [0, -5])
def test_no_length_at_all(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"max_model_len={wanted} is not a length"):
        resolve(wanted)
