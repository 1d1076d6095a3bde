"""EngineArgs: what a user can say about an engine, in Python and on the command line.

Flat and unvalidated on purpose: `resolve.py` checks it and makes every automatic choice. Flags and
their help come from the fields here; names of other engines from `compat.py`. Imports no torch.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from quire import assets, compat, env
from quire.config import (
    DEFAULT_GPU_MEMORY_UTILIZATION,
    DEVICE_DEFAULTS,
)
from quire.not_built import missing
from quire.sizes import parse_bytes, parse_count
from quire.tokenizer.loading import TOKENIZER_MODES
from quire.weights.checkpoint_files import LOAD_FORMATS

if TYPE_CHECKING:
    from quire.config import EngineConfig

C = TypeVar("C", bound=type)

BUNDLED_MODEL = assets.TINY_CHAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """How a field of `EngineArgs` looks on the command line."""

    group: str
    help: str
    parse: Callable[[str], Any] = str  # bool: an on/off pair of flags
    choices: tuple[str, ...] | None = None
    short: tuple[str, ...] = ()
    nargs: str | None = None
    as_default: tuple[Any, ...] = ()  # values that mean the default
    metavar: str | None = None
    theirs: Mapping[str, str] = field(default_factory=dict)  # another engine's value -> ours
    refused: Mapping[str, str] = field(default_factory=dict)  # their value -> why not, remedy

    def ours(self, value: Any) -> Any:
        """Quire's equivalent of ``value``, or ``value`` itself."""
        return self.theirs.get(value, value) if isinstance(value, str) else value

    def why_not(self, value: Any) -> str:
        """Why ``value``, one of another engine, is refused; empty if it is not."""
        return self.refused.get(value, "") if isinstance(value, str) else ""


def parse_max_model_len(value: int | str | None) -> int | str | None:
    """``4096``, ``8k``, ``1M``; ``auto`` and ``-1`` are both the longest that fits in memory."""
    if value is None:
        return None
    if value == "auto" or value in (-1, "-1"):
        return "auto"
    return parse_count(value)


def parse_seed(text: str) -> int:
    """A whole number; ``None``, the default in vLLM's help, means 0."""
    return 0 if text.lower() == "none" else int(text)


def parse_json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is not a JSON object")
    return value


def parse_json_list(text: str) -> list[str]:
    """A JSON list of strings."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{text!r} is not a JSON list of strings")
    return value


def arg(default: Any, group: str, help: str, **flag: Any) -> Any:
    """A dataclass field with its command-line flag in the metadata."""
    return field(default=default, metadata={"flag": Flag(group=group, help=help, **flag)})


_model = functools.partial(arg, group="model")
_load = functools.partial(arg, group="loading")
_cache = functools.partial(arg, group="KV cache")
_schedule = functools.partial(arg, group="scheduling")
_device = functools.partial(arg, group="device")


_UNITS = "8k is 8,000 and 8K 8,192"
# vLLM's values: what they mean here, or why they are refused.
_THEIR_LOAD_FORMATS = {
    "npcache": "pt",  # the same files, plus vLLM's own cache of them
    "hf": "auto",
    **dict.fromkeys(("fastsafetensors", "instanttensor", "runai_streamer"), "safetensors"),
}
_NO_LOAD_FORMATS = {
    "bitsandbytes": compat.QUANTIZATION,
    "gguf": "files of llama.cpp are not read; give the repository that they were made from",
    "mistral": "weights laid out for their maker's own code are not read; use auto, with a "
    "repository that holds them in Hugging Face format",
    **dict.fromkeys(
        ("runai_streamer_sharded", "sharded_state", "tensorizer"),
        "weights saved by a running engine are not read; use auto, with the checkpoint itself",
    ),
}
_NO_TOKENIZER_MODES = {
    "custom": "tokenizers cannot be registered; give a folder as tokenizer, with "
    "trust_remote_code if it holds code of its own",
}
_NO_DEVICES = dict.fromkeys(
    ("hpu", "neuron", "openvino", "rocm", "tpu", "xpu"),
    "only NVIDIA GPUs and CPUs are supported; use auto",
)


def _by_device(name: str) -> str:
    """The per-device defaults of ``name``, for a help text."""
    values = (f"{getattr(one, name)} on {kind}" for kind, one in DEVICE_DEFAULTS.items())
    return f"default {', '.join(values)}"


def _also_other_names(cls: C) -> C:
    """Let the constructor take the names of `compat.VERDICTS` too, and show them in its
    signature."""
    plain_init = vars(cls)["__init__"]
    names = [item.name for item in fields(cls)]

    @functools.wraps(plain_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        plain_init(self, *args, **compat.translate(kwargs, names))

    plain = inspect.signature(plain_init)
    others = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=verdict.default)
        for name, verdict in compat.VERDICTS.items()
    ]
    parameters = [*plain.parameters.values(), *others]
    __init__.__signature__ = plain.replace(parameters=parameters)  # type: ignore[attr-defined]
    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@_also_other_names
@dataclass
class EngineArgs:
    """Arguments of one engine; ``max_model_len`` is ``--max-model-len`` on the command line."""

    model: str = _model(
        str(BUNDLED_MODEL), help="hub id or local folder; default: the bundled tiny model"
    )
    tokenizer: str | None = _model(None, help="hub id or folder of the tokenizer, if not the model")
    tokenizer_mode: str = _model(
        "auto",
        help="auto: a fast tokenizer if there is one; hf: as transformers alone would load it",
        choices=TOKENIZER_MODES,
        refused=_NO_TOKENIZER_MODES,
    )
    skip_tokenizer_init: bool = _model(
        False, help="token ids in, token ids out: load no tokenizer", parse=bool
    )
    trust_remote_code: bool = _model(
        False,
        help="run code that the model's repository ships, of tokenizers and models",
        parse=bool,
    )
    model_impl: str = _model(
        "auto",
        help="whose code computes the model: quire, transformers (any decoder it has, slower), or "
        "auto: quire where it knows the architecture",
        choices=("auto", "quire", "vllm", "transformers"),
    )
    dtype: str = _model(
        "auto",
        help="number format of weights and KV cache; auto: as stored, if the device is fast at it",
        choices=("auto", "half", "float16", "bfloat16", "float", "float32"),
    )
    max_model_len: int | str | None = _model(
        None,
        help=f"longest prompt and output together, or auto for what fits in memory; {_UNITS}; "
        "default: what the model's config says, or less if only less fits",
        parse=parse_max_model_len,
        metavar="TOKENS",
    )
    revision: str | None = _model(None, help="branch, tag or commit of the model")
    tokenizer_revision: str | None = _model(None, help="branch, tag or commit of the tokenizer")
    hf_token: bool | str | None = _model(
        None,
        help="access token of the hub; default, and without a value: HF_TOKEN, or the stored login",
        nargs="?",
        as_default=(True,),
    )
    hf_overrides: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] | None = _model(
        None, help="JSON merged into config.json; null empties a key", parse=parse_json_object
    )
    served_model_name: str | list[str] | None = _model(
        None, help="public name or names of the model; default: as typed", nargs="+"
    )
    seed: int | None = _model(
        0,
        help="seed of dummy weights, and of requests that have none of their own; None is 0",
        parse=parse_seed,
        metavar="N",
    )
    max_logprobs: int = _model(
        20, help="most log-probabilities a request may ask for; -1: the vocabulary", parse=int
    )
    generation_config: str = _model(
        "auto",
        help="where default sampling parameters come from: auto (the model's folder), "
        "quire (none), or another folder",
    )
    override_generation_config: dict[str, Any] | None = _model(
        None,
        help="JSON merged into the generation config; its max_new_tokens also limits answers of a "
        "server, as that of a folder given with --generation-config does",
        parse=parse_json_object,
    )
    load_format: str = _load(
        "auto",
        help="format of the weights; dummy: random values, for benchmarks",
        choices=(*LOAD_FORMATS, "dummy"),
        theirs=_THEIR_LOAD_FORMATS,
        refused=_NO_LOAD_FORMATS,
    )
    download_dir: str | None = _load(None, help="folder for downloads; default: the hub's cache")
    use_tqdm_on_load: bool = _load(True, help="show progress while loading", parse=bool)
    block_size: int | None = _cache(
        None, help=f"tokens in a KV block; {_by_device('block_size')}", parse=int
    )
    num_gpu_blocks_override: int | None = _cache(
        None, help="number of KV blocks, whatever the memory", parse=int
    )
    kv_cache_memory_bytes: int | str | None = _cache(
        None, help="size of the KV cache, such as 4GiB", parse=parse_bytes, metavar="BYTES"
    )
    kv_cache_dtype: str | None = _cache(
        "auto",
        help="number format of the KV cache: auto, that of the model; or fp8 (fp8_e4m3) or "
        "fp8_e5m2, with half the memory and less exact",
    )
    gpu_memory_utilization: float = _cache(
        DEFAULT_GPU_MEMORY_UTILIZATION,
        help="share of the GPU's memory this engine may use, weights included",
        parse=float,
    )
    enable_prefix_caching: bool = _cache(
        True,
        help="reuse the KV blocks of prompts that begin alike",
        parse=bool,
        as_default=(None,),
    )
    max_num_seqs: int | str | None = _schedule(
        None,
        help=f"completions that run at once; {_UNITS}; {_by_device('max_num_seqs')}",
        parse=parse_count,
    )
    max_num_batched_tokens: int | str | None = _schedule(
        None,
        help="most tokens computed in one step; on a GPU prompts that would not fill it come in "
        f"shorter ones while others decode; {_UNITS}; {_by_device('max_num_batched_tokens')}",
        parse=parse_count,
    )
    long_prefill_token_threshold: int | str = _schedule(
        0,
        help=f"most prompt tokens of one request in a step; {_UNITS}; 0: no limit",
        parse=parse_count,
    )
    scheduling_policy: str = _schedule(
        "fcfs",
        help="who is served first: fcfs, whoever came first, and then every priority must be 0; "
        "priority: the request with the smallest priority",
        choices=("fcfs", "priority"),
    )
    enable_chunked_prefill: bool = _schedule(
        True, help="let a long prompt take several steps", parse=bool, as_default=(None,)
    )
    steps_in_flight: int | None = _schedule(
        None,
        help=f"steps planned before the tokens are known; {_by_device('steps_in_flight')}",
        parse=int,
    )
    tensor_parallel_size: int = _device(
        1, help="devices that share every layer", parse=int, short=("-tp",)
    )
    pipeline_parallel_size: int = _device(
        1, help="devices that share the layers among them", parse=int, short=("-pp",)
    )
    device: str = _device(
        "auto",
        help="where the model runs",
        choices=("auto", "cuda", "cpu"),
        refused=_NO_DEVICES,
    )
    attention_backend: str | None = _device(
        "auto",
        help=f"attention kernels: {', '.join(compat.ATTENTION_BACKENDS)}; auto is "
        f"{_by_device('attention_backend').removeprefix('default ')}; fa3, cudnn and "
        "flashinfer need their packages and are checked against triton at start; the last only "
        f"when named, here or in {env.ATTENTION_BACKEND.names[0]}",
        metavar="NAME",
    )
    enforce_eager: bool = _device(
        False, help="on a GPU: no captured graphs, every step op by op", parse=bool
    )

    def __setattr__(self, name: str, value: Any) -> None:
        """Accept the constructor's names and values, and attributes that a subclass adds."""
        known = {item.name: item for item in fields(self)}
        if name not in known and not self._is_checked(name):
            super().__setattr__(name, value)
            return
        for changed, new in compat.assigned(name, value, vars(self), known).items():
            item = known[changed]
            flag: Flag | None = item.metadata.get("flag")  # None: a field of a subclass
            if flag is not None:
                if why := flag.why_not(new):
                    raise ValueError(f"{changed}={new!r}: {why}")
                is_default = any(new is one for one in flag.as_default)
                new = item.default if is_default else flag.ours(new)
            super().__setattr__(changed, new)

    def _is_checked(self, name: str) -> bool:
        """Whether ``name``, not a field, must be one that the constructor knows."""
        cls = type(self)
        if hasattr(cls, name):  # a property or another class attribute
            return False
        is_ours = cls in (EngineArgs, AsyncEngineArgs)
        return name in compat.VERDICTS or (is_ours and not name.startswith("_"))

    if not TYPE_CHECKING:  # so that type checkers still report unknown names

        def __getattr__(self, name: str) -> Any:
            if name not in compat.VERDICTS:
                raise missing(type(self), name)
            return compat.told(name, vars(self))

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Add a flag for every field, and hidden ones for the names of `compat.VERDICTS`."""
        add_flags(parser, EngineArgs)
        add_hidden_flags(parser, compat.VERDICTS)
        return parser

    @classmethod
    def from_cli_args(cls, namespace: argparse.Namespace) -> EngineArgs:
        """The engine arguments in a parsed command line."""
        names = {item.name for item in fields(cls)} | compat.VERDICTS.keys()
        return cls(**{name: value for name, value in vars(namespace).items() if name in names})

    def create_engine_config(self, usage_context: object = None) -> EngineConfig:
        """Check the arguments and make every automatic choice."""
        from quire.resolve import resolve

        return resolve(self)


class AsyncEngineArgs(EngineArgs):
    """`EngineArgs` under the name that vLLM users know for `AsyncLLMEngine`."""

    @staticmethod
    def add_cli_args(
        parser: argparse.ArgumentParser, async_args_only: bool = False
    ) -> argparse.ArgumentParser:
        """The flags of `EngineArgs`; with ``async_args_only`` those that only this class has in
        vLLM, which are hidden here."""
        if not async_args_only:
            return EngineArgs.add_cli_args(parser)
        add_hidden_flags(parser, {name: compat.VERDICTS[name] for name in _ASYNC_ARGS})
        return parser


_ASYNC_ARGS = ("enable_log_requests", "disable_log_requests")


def choices_of(name: str) -> tuple[str, ...]:
    """The values that the field ``name`` takes."""
    flag: Flag = next(item for item in fields(EngineArgs) if item.name == name).metadata["flag"]
    assert flag.choices is not None, name
    return flag.choices


def add_flags(parser: argparse.ArgumentParser, arguments: Any) -> None:
    """Add a flag for every field of a dataclass whose fields `arg` made, in their groups."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for item in fields(arguments):
        flag: Flag = item.metadata["flag"]
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        _add_flag(groups[flag.group], item.name, item.default, flag)


def add_hidden_flags(
    parser: argparse.ArgumentParser, verdicts: Mapping[str, compat.Verdict]
) -> None:
    """Add a hidden flag for every other engine's name; `compat.translate` handles its value."""
    for name, verdict in verdicts.items():
        _add_hidden_flag(parser, name, verdict)


class _Gather(argparse.Action):
    """Collects the values of a flag that takes several, and may be repeated."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        so_far = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if so_far is self.default else [*so_far, *values])


def _add_flag(group: argparse._ArgumentGroup, name: str, default: Any, flag: Flag) -> None:
    dashed = "--" + name.replace("_", "-")
    if flag.parse is bool:
        group.add_argument(
            dashed, action=argparse.BooleanOptionalAction, default=default, help=flag.help
        )
        return
    group.add_argument(
        dashed,
        *flag.short,
        dest=name,
        default=default,
        type=_parse_of(flag),
        choices=flag.choices,
        nargs=flag.nargs,
        action=_Gather if flag.nargs == "+" else "store",
        metavar=None if flag.choices else flag.metavar or _metavar(flag.parse),
        help=flag.help,
    )


def _add_hidden_flag(parser: argparse.ArgumentParser, name: str, verdict: compat.Verdict) -> None:
    """A flag of another engine: not in the help, absent from the namespace unless given.

    Skips names that the command has its own flags for.
    """
    dashed = "--" + name.replace("_", "-")
    own = parser._option_string_actions
    if dashed in own:
        return
    if verdict.is_switch or isinstance(verdict.default, bool):
        action = parser.add_argument(
            dashed,
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    else:
        action = parser.add_argument(
            dashed,
            *(short for short in verdict.short if short not in own),
            dest=name,
            type=_json_or_text,
            nargs="+" if verdict.takes_many else None,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    action.verdict = verdict  # type: ignore[attr-defined]


def verdict_of(action: argparse.Action) -> compat.Verdict | None:
    """The verdict on another engine's flag; None for a flag of Quire's own."""
    return getattr(action, "verdict", None)


def as_argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """``parse`` for argparse, which shows only the message of an ``ArgumentTypeError``."""
    if parse in (str, int, float):
        return parse

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _parse_of(flag: Flag) -> Callable[[str], Any]:
    """The parser of a flag's value for argparse; translates or refuses other engines' values."""
    parse = as_argument(flag.parse)
    if not (flag.theirs or flag.refused):
        return parse

    def parse_value(text: str) -> Any:
        if why := flag.why_not(text):
            raise argparse.ArgumentTypeError(f"{text!r}: {why}")
        return parse(flag.ours(text))

    return parse_value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _metavar(parse: Callable[[str], Any]) -> str:
    return {int: "N", float: "X", parse_count: "N", parse_json_object: "JSON"}.get(parse, "TEXT")
