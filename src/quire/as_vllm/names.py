"""The modules and names of vLLM that programs import, and what each is in Quire. Only data.

A name is an object of Quire, or it is not built: then it can be imported, since programs import
more than they use, and using it is an error that says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quire import env
from quire.compat import BATCH_PROCESSORS, PLUGIN, POOLING

VERSION = env.VLLM_VERSION
PACKAGE = "vllm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """What a program finds in one module of vLLM."""

    names: Mapping[str, str] = field(default_factory=dict)  # name -> "module:attribute" of Quire
    not_built: Mapping[str, str] = field(default_factory=dict)  # name -> why, and what to do
    same_as: str = ""  # a module of Quire whose attributes are the names
    runs: tuple[str, ...] | None = None  # `python -m` of this module is `quire` with these words


def _in(module: str, *names: str, **renamed: str) -> dict[str, str]:
    """vLLM's name -> "module:attribute"; ``renamed`` holds names that differ in Quire."""
    return {one: f"{module}:{one}" for one in names} | {
        one: f"{module}:{theirs}" for one, theirs in renamed.items()
    }


def _because(why: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, why)


_HERE = "quire.as_vllm.stand_ins"
_MEDIA = "only text prompts are supported yet; pass text or token ids"
_ONE_PROCESS = "only one process computes yet; leave it out"
_NO_OBJECT = "pass the value itself, or a dict, where this object is expected"
_OTHER_CONFIG = (
    "EngineArgs.create_engine_config() gives Quire's own, with model, cache, scheduler, load and "
    "device; make engines with from_engine_args"
)

_ENGINE_ARGS = _in("quire.args", "EngineArgs", "AsyncEngineArgs")
_SAMPLING = _in(
    "quire.sampling_params",
    *("SamplingParams", "BeamSearchParams", "StructuredOutputsParams", "GuidedDecodingParams"),
    *("RequestOutputKind", "SamplingType"),
)
_PROMPTS = _in("quire.prompts", "PromptType", "TextPrompt", "TokensPrompt")
_OTHER_PROMPTS = _because(_MEDIA, "EmbedsPrompt", "ExplicitEncoderDecoderPrompt")
_OUTPUTS = _in("quire.outputs", "RequestOutput", "CompletionOutput")
_BEAMS = _in("quire.outputs", "BeamSearchOutput", "BeamSearchSequence")
_LOGPROBS = _in("quire.outputs", "Logprob", "PromptLogprobs", "SampleLogprobs")
_POOLING_OUTPUTS = _because(
    POOLING,
    *("PoolingOutput", "PoolingRequestOutput", "EmbeddingOutput", "EmbeddingRequestOutput"),
    *("ClassificationOutput", "ClassificationRequestOutput"),
    *("ScoringOutput", "ScoringRequestOutput"),
)
_LLM = _in("quire.llm", "LLM")
_LLM_ENGINE = _in("quire.engine.llm_engine", "LLMEngine")
_ASYNC_LLM = _in("quire.engine.async_engine", "AsyncLLM", "AsyncLLMEngine")
_REGISTRY = _in("quire.models.registry", "ModelRegistry")
_NO_GROUPS = _in(
    _HERE,
    *("destroy_model_parallel", "destroy_distributed_environment", "cleanup_dist_env_and_memory"),
)
_GROUPS = _because(
    _ONE_PROCESS,
    *("init_distributed_environment", "initialize_model_parallel", "get_tp_group"),
    *("get_tensor_model_parallel_rank", "get_tensor_model_parallel_world_size"),
    "GroupCoordinator",
)
_GET_TOKENIZER = _in(_HERE, "get_tokenizer")
_CHAT_REQUEST = _in("quire.server.protocol.chat", "ChatCompletionRequest")
_COMPLETION_REQUEST = _in("quire.server.protocol.completions", "CompletionRequest")
_JSON_ANSWERS = "responses are plain JSON without classes; use the types of the package openai"
_CHAT_ANSWERS = _because(
    _JSON_ANSWERS, "ChatCompletionResponse", "ChatCompletionStreamResponse", "ChatMessage"
)
_COMPLETION_ANSWERS = _because(_JSON_ANSWERS, "CompletionResponse")
_ANSWER_PARTS = _because(
    _JSON_ANSWERS,
    *("DeltaMessage", "ErrorResponse", "FunctionCall", "ToolCall"),
    *("ModelCard", "ModelList", "UsageInfo"),
)
_MODEL_CONFIG = _in("quire.engine.model_view", ModelConfig="ModelConfigView")
# Their module in `vllm.config` -> class.
_OPTION_CONFIGS = {
    "cache": "CacheConfig",
    "compilation": "CompilationConfig",
    "device": "DeviceConfig",
    "load": "LoadConfig",
    "lora": "LoRAConfig",
    "parallel": "ParallelConfig",
    "pooler": "PoolerConfig",
    "scheduler": "SchedulerConfig",
    "speculative": "SpeculativeConfig",
    "structured_outputs": "StructuredOutputsConfig",
}
_VLLM_CONFIG = _because(_OTHER_CONFIG, "VllmConfig")
_KV_TRANSFER = _because("KV caches cannot be moved between engines yet", "KVTransferConfig")
_PARSER = _in(_HERE, "FlexibleArgumentParser")
_FETCH = _because(_MEDIA, "fetch_image", "fetch_audio", "fetch_video", "encode_image_base64")

_KNOWN: dict[str, Module] = {
    "vllm": Module(
        names={
            **_in(_HERE, "__version__", "__version_tuple__"),
            **_LLM,
            **_REGISTRY,
            **_PROMPTS,
            **_in("quire.sampling_params", "SamplingParams", "BeamSearchParams"),
            **_OUTPUTS,
            **_LLM_ENGINE,
            **_in("quire.engine.async_engine", "AsyncLLMEngine"),
            **_ENGINE_ARGS,
        },
        not_built={
            **_POOLING_OUTPUTS,
            **_because(POOLING, "PoolingParams"),
            **_because(_ONE_PROCESS, "initialize_ray_cluster"),
        },
    ),
    "vllm.version": Module(names=_in(_HERE, "__version__", "__version_tuple__")),
    "vllm.sampling_params": Module(
        names=_SAMPLING,
        not_built=_because("use repetition_penalty", "RepetitionDetectionParams"),
    ),
    "vllm.pooling_params": Module(not_built=_because(POOLING, "PoolingParams")),
    "vllm.beam_search": Module(names=_BEAMS),
    "vllm.entrypoints.generate.beam_search.utils": Module(names=_BEAMS),
    "vllm.inputs": Module(
        names=_PROMPTS, not_built={**_OTHER_PROMPTS, **_because(_MEDIA, "DataPrompt")}
    ),
    "vllm.inputs.data": Module(names=_PROMPTS, not_built=_OTHER_PROMPTS),
    "vllm.inputs.llm": Module(names=_PROMPTS, not_built=_OTHER_PROMPTS),
    "vllm.outputs": Module(
        names={**_OUTPUTS, **_in("quire.outputs", "RequestMetrics")}, not_built=_POOLING_OUTPUTS
    ),
    "vllm.logprobs": Module(names=_LOGPROBS),
    "vllm.sequence": Module(names={**_LOGPROBS, **_in("quire.outputs", "RequestMetrics")}),
    "vllm.lora.request": Module(names=_in("quire.lora.request", "LoRARequest")),
    "vllm.engine.arg_utils": Module(names=_ENGINE_ARGS),
    "vllm.engine.llm_engine": Module(names=_LLM_ENGINE),
    "vllm.engine.async_llm_engine": Module(
        names={
            **_in("quire.engine.async_engine", "AsyncLLMEngine"),
            **_in("quire.errors", AsyncEngineDeadError="EngineDeadError"),
        },
        not_built=_because(
            "the engine has no asyncio task that could end; leave it out", "_log_task_completion"
        ),
    ),
    "vllm.v1.engine.llm_engine": Module(names=_LLM_ENGINE),
    "vllm.v1.engine.async_llm": Module(names=_ASYNC_LLM),
    "vllm.v1.engine.exceptions": Module(
        names=_in("quire.errors", "EngineDeadError", EngineGenerateError="RequestError")
    ),
    "vllm.v1.metrics.loggers": Module(
        not_built=_because("/metrics of `quire serve` has them", "StatLoggerBase")
    ),
    "vllm.v1.metrics.reader": Module(
        not_built=_because(
            "use stats of the engine, or /metrics of `quire serve`",
            *("Metric", "Counter", "Gauge", "Histogram", "Vector", "get_metrics_snapshot"),
        )
    ),
    "vllm.v1.sample.logits_processor": Module(
        not_built=_because(
            BATCH_PROCESSORS,
            *("LogitsProcessor", "AdapterLogitsProcessor", "BatchUpdate", "RequestLogitsProcessor"),
        )
    ),
    "vllm.entrypoints.llm": Module(names=_LLM),
    "vllm.entrypoints.cli.main": Module(names=_in("quire.cli", "main"), runs=()),
    "vllm.entrypoints.openai.api_server": Module(
        not_built=_because(
            "run `quire serve`, or this module by `python -m`",
            *("run_server", "build_app", "build_async_engine_client", "init_app_state"),
        ),
        runs=("serve",),
    ),
    "vllm.entrypoints.openai.protocol": Module(
        names={**_CHAT_REQUEST, **_COMPLETION_REQUEST},
        not_built={**_CHAT_ANSWERS, **_COMPLETION_ANSWERS, **_ANSWER_PARTS},
    ),
    "vllm.entrypoints.openai.chat_completion.protocol": Module(
        names=_CHAT_REQUEST, not_built=_CHAT_ANSWERS
    ),
    "vllm.entrypoints.openai.completion.protocol": Module(
        names=_COMPLETION_REQUEST, not_built=_COMPLETION_ANSWERS
    ),
    "vllm.entrypoints.openai.engine.protocol": Module(not_built=_ANSWER_PARTS),
    "vllm.entrypoints.openai.run_batch": Module(runs=("run-batch",)),
    "vllm.entrypoints.chat_utils": Module(
        names={
            **_in("quire.chat_template", ChatCompletionMessageParam="Message"),
            **_in(_HERE, resolve_hf_chat_template="resolve_chat_template"),
        }
    ),
    "vllm.renderers.hf": Module(names=_in(_HERE, "resolve_chat_template")),
    "vllm.model_executor.guided_decoding.guided_fields": Module(
        names=_in("quire.engine.guided_options", "GuidedDecodingRequest", "LLMGuidedOptions")
    ),
    "vllm.model_executor.models": Module(names=_REGISTRY),
    "vllm.model_executor.models.registry": Module(names=_REGISTRY),
    "vllm.model_executor.parallel_utils.parallel_state": Module(names=_NO_GROUPS),
    "vllm.distributed": Module(names=_NO_GROUPS, not_built=_GROUPS),
    "vllm.distributed.parallel_state": Module(names=_NO_GROUPS, not_built=_GROUPS),
    "vllm.config": Module(
        names=_MODEL_CONFIG,
        not_built={
            **_VLLM_CONFIG,
            **_because(_NO_OBJECT, *_OPTION_CONFIGS.values()),
            **_KV_TRANSFER,
        },
    ),
    "vllm.config.model": Module(names=_MODEL_CONFIG),
    "vllm.config.vllm": Module(not_built=_VLLM_CONFIG),
    "vllm.config.kv_transfer": Module(not_built=_KV_TRANSFER),
    **{
        f"vllm.config.{module}": Module(not_built=_because(_NO_OBJECT, name))
        for module, name in _OPTION_CONFIGS.items()
    },
    "vllm.envs": Module(same_as="quire.as_vllm.envs"),
    "vllm.logger": Module(names=_in(_HERE, "init_logger")),
    "vllm.usage.usage_lib": Module(names=_in(_HERE, "UsageContext")),
    "vllm.transformers_utils.tokenizer": Module(
        names={**_GET_TOKENIZER, **_in(_HERE, "AnyTokenizer")}
    ),
    "vllm.tokenizers": Module(names=_GET_TOKENIZER),
    "vllm.tokenizers.registry": Module(names=_GET_TOKENIZER),
    "vllm.utils": Module(
        names={**_in(_HERE, "random_uuid", "Counter", "get_open_port"), **_PARSER}
    ),
    "vllm.utils.counter": Module(names=_in(_HERE, "Counter")),
    "vllm.utils.network_utils": Module(names=_in(_HERE, "get_open_port")),
    "vllm.utils.argparse_utils": Module(names=_PARSER),
    "vllm.multimodal": Module(
        not_built=_because(_MEDIA, "MULTIMODAL_REGISTRY", "MultiModalDataDict")
    ),
    "vllm.multimodal.utils": Module(not_built=_FETCH),
    "vllm.platforms": Module(names=_in(_HERE, "current_platform")),
    "vllm.platforms.interface": Module(names=_in(_HERE, "DeviceCapability")),
    "vllm.plugins": Module(
        names=_in("quire.plugins", load_general_plugins="load_plugins"),
        not_built=_because(PLUGIN, "load_plugins_by_group"),
    ),
}


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


# Including packages that only contain other modules.
MODULES: Mapping[str, Module] = {
    **{parent: Module() for name in _KNOWN for parent in _parents(name)},
    **_KNOWN,
}
