"""Imports of vLLM's modules and names."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging import version

import quire
from quire import env
from quire.as_vllm import install
from quire.as_vllm.finder import Finder, no_module
from quire.as_vllm.names import MODULES, VERSION
from quire.errors import EngineDeadError
from quire.platform import default_device
from tests.fakes.byte_tokenizer import CHAT_TEMPLATE, save_byte_tokenizer


def _forget() -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "vllm"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    _forget()
    install()
    yield
    _forget()


def fails(statement: str) -> str:
    """The message of what an import raises: always one that `except ImportError` catches."""
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    return str(caught.value)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_every_name_of_it_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    known = MODULES[name]
    for one in known.names:
        place, _, attribute = known.names[one].partition(":")
        assert getattr(module, one) is getattr(importlib.import_module(place), attribute)
    assert {*known.names} <= {*dir(module)}
    namespace: dict[str, Any] = {}
    exec(f"from {name} import *", namespace)
    assert namespace.keys() >= known.names.keys()


@pytest.mark.parametrize(
    ("module", "name"), [(place, name) for place, one in MODULES.items() for name in one.not_built]
)
def test_what_is_not_built_can_be_imported_and_says_so_when_it_is_used(
    module: str, name: str
) -> None:
    found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(module), name)
    assert not isinstance(quire.SamplingParams(), found)
    with pytest.raises(ValueError, match=f"^{name} cannot be used: "):
        found(1, more=2)
    with pytest.raises(AttributeError, match=rf"^{name}\.register cannot be used: "):
        found.register  # noqa: B018


def test_names_are_quires_own() -> None:
    vllm = importlib.import_module("vllm")
    assert vllm.LLM is quire.LLM
    assert vllm.lora.request.LoRARequest is quire.LoRARequest
    assert vllm.BeamSearchParams is vllm.sampling_params.BeamSearchParams
    errors = importlib.import_module("vllm.engine.async_llm_engine")
    assert errors.AsyncEngineDeadError is EngineDeadError


@pytest.mark.parametrize(
    ("newer", "older", "name"),
    [
        *(
            (f"entrypoints.openai.{part}.protocol", "entrypoints.openai.protocol", name)
            for part, name in [
                ("chat_completion", "ChatCompletionRequest"),
                ("chat_completion", "ChatMessage"),
                ("completion", "CompletionRequest"),
                ("engine", "ErrorResponse"),
            ]
        ),
        ("config.model", "config", "ModelConfig"),
        ("config.load", "config", "LoadConfig"),
        ("config.device", "config", "DeviceConfig"),
        ("config.scheduler", "config", "SchedulerConfig"),
        ("config.vllm", "config", "VllmConfig"),
        ("inputs.llm", "inputs", "TokensPrompt"),
        ("entrypoints.generate.beam_search.utils", "beam_search", "BeamSearchOutput"),
        ("tokenizers.registry", "tokenizers", "get_tokenizer"),
    ],
)
def test_names_are_at_their_older_and_newer_place(newer: str, older: str, name: str) -> None:
    new, old = (getattr(importlib.import_module(f"vllm.{one}"), name) for one in (newer, older))
    assert (new.__name__, new.__doc__) == (old.__name__, old.__doc__)


def test_what_reads_metrics_says_what_to_use() -> None:
    reader = importlib.import_module("vllm.v1.metrics.reader")
    assert not isinstance(1.0, reader.Gauge)
    with pytest.raises(ValueError, match="get_metrics_snapshot cannot be used: use stats"):
        reader.get_metrics_snapshot()


def test_versions_can_be_compared() -> None:
    vllm = importlib.import_module("vllm")
    assert version.parse(vllm.__version__) >= version.parse("0.10.2")
    assert vllm.__version_tuple__ == version.parse(VERSION).release
    assert importlib.metadata.version("vllm") == VERSION


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("import vllm.nothing", "Quire has no vllm.nothing; docs/"),
        ("from vllm import Nothing", "Quire has no vllm.Nothing; docs/"),
        ("from vllm import SamplingParam", "Quire has no vllm.SamplingParam; did you mean Sampl"),
        (
            "from vllm.utils import random_uid",
            "has no vllm.utils.random_uid; did you mean ra",
        ),
        ("import vllm.engine.arg_util", "no vllm.engine.arg_util; did you mean vllm.engine.arg_u"),
        ("import vllm.arg_utils", "no vllm.arg_utils; did you mean vllm.engine.arg_utils?"),
        ("from vllm.utils import get_ip", "Quire has no vllm.utils.get_ip; docs/"),
        ("import vllm.v1.metrics.stats", "Quire has no vllm.v1.metrics.stats; docs/"),
        ("import vllm.v1.metrics.raeder", "raeder; did you mean vllm.v1.metrics.reader?"),
        ("import vllm.config.observe", "Quire has no vllm.config.observe; docs/"),
    ],
)
def test_what_there_is_not_is_named(statement: str, message: str) -> None:
    assert message in fails(statement)


def test_a_module_that_moved_is_found_by_its_whole_path() -> None:
    assert "; did you mean vllm.sampling_params" in no_module("vllm.sampling.params")


@pytest.mark.parametrize(
    ("statement", "kind", "name"),
    [
        ("import vllm.v1.nothing", ModuleNotFoundError, "vllm.v1.nothing"),
        ("import vllm.nothing.more", ModuleNotFoundError, "vllm.nothing"),
        ("from vllm.nothing import more", ModuleNotFoundError, "vllm.nothing"),
        ("__import__('vllm.nothing')", ModuleNotFoundError, "vllm.nothing"),
        ("from vllm.v1 import nothing", ImportError, "vllm.v1"),
        ("from vllm import Nothing", ImportError, "vllm"),
    ],
)
def test_errors_of_imports_have_pythons_type_and_name(
    statement: str, kind: type[ImportError], name: str
) -> None:
    with pytest.raises(ImportError, match=r"^Quire has no vllm") as caught:
        exec(statement, {})
    assert (type(caught.value), caught.value.name) == (kind, name)


def test_who_asks_whether_a_module_exists_gets_none() -> None:
    for name in ("vllm.nothing", "vllm.v1.nothing", "vllm._C"):
        assert importlib.util.find_spec(name) is None
        assert Finder().find_spec(name) is None
    assert importlib.util.find_spec("vllm.v1.engine.llm_engine") is not None
    with pytest.raises(ModuleNotFoundError, match=r"vllm\.nothing"):  # as of any package
        importlib.util.find_spec("vllm.nothing.more")


def test_an_attribute_that_there_is_not_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no vllm\.LLMs; did you mean LLM"):
        importlib.import_module("vllm").LLMs  # noqa: B018
    assert not hasattr(importlib.import_module("vllm"), "__wrapped__")


def test_other_packages_are_not_found_by_it() -> None:
    assert Finder().find_spec("vllm_plugin") is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm-plugin")


def test_it_is_installed_once_and_before_the_first_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install()
    assert sum(isinstance(finder, Finder) for finder in sys.meta_path) == 1
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])
    monkeypatch.setitem(sys.modules, "vllm", sys)
    with pytest.raises(RuntimeError, match=r"call install\(\) before"):
        install()


def test_variables_are_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = importlib.import_module("vllm.envs")
    assert envs.VLLM_USE_MODELSCOPE is False
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    assert envs.VLLM_USE_MODELSCOPE is True
    assert (envs.VLLM_HOST_IP, envs.VLLM_SERVER_DEV_MODE) == ("", False)
    monkeypatch.setenv("VLLM_HOST_IP", "10.0.0.1")
    assert envs.VLLM_HOST_IP == "10.0.0.1"
    for name in env.WITHOUT_EFFECT:
        getattr(envs, name)
    assert envs.is_set("VLLM_HOST_IP") and not envs.is_set("VLLM_PP_LAYER_PARTITION")
    assert envs.environment_variables["VLLM_HOST_IP"]() == "10.0.0.1"
    assert {*env.WITHOUT_EFFECT} <= {*envs.environment_variables}
    with pytest.raises(AttributeError, match="no environment variable VLLM_USE_MODELSCOP; did"):
        envs.VLLM_USE_MODELSCOP  # noqa: B018


def test_their_argument_parser_takes_their_flags() -> None:
    vllm = importlib.import_module("vllm")
    utils = importlib.import_module("vllm.utils")
    parser = utils.FlexibleArgumentParser(description="a program")
    parser.add_argument("--num-prompts", type=int, default=1)
    parser = vllm.EngineArgs.add_cli_args(parser)
    parser.set_defaults(model="a-model")
    parsed = parser.parse_args(["--max_model_len=8k", "--num_prompts", "3", "--enforce-eager"])
    assert isinstance(parser, argparse.ArgumentParser) and parsed.num_prompts == 3
    args = vllm.EngineArgs.from_cli_args(parsed)
    assert (args.model, args.max_model_len, args.enforce_eager) == ("a-model", 8000, True)


def test_modules_have_a_file_in_a_folder_that_there_is() -> None:
    for name in ("vllm", "vllm.utils"):
        assert Path(str(importlib.import_module(name).__file__)).is_file()


def test_counters_and_ports() -> None:
    utils = importlib.import_module("vllm.utils")
    counter = utils.Counter(3)
    assert [next(counter), next(counter)] == [3, 4]
    counter.reset()
    assert next(counter) == 0
    with socket.socket() as server:
        server.bind(("127.0.0.1", utils.get_open_port()))


def test_the_platform_is_the_device_that_quire_would_take() -> None:
    platform = importlib.import_module("vllm.platforms").current_platform
    assert platform.device_type == default_device()
    kinds = (platform.is_cuda(), platform.is_cpu(), platform.is_rocm(), platform.is_tpu())
    assert sum(kinds) == 1 and platform.is_cuda() is platform.is_cuda_alike()
    assert platform.get_device_name() and platform.get_device_total_memory() > 2**20


def test_small_helpers(tmp_path: Path) -> None:
    from_utils = importlib.import_module("vllm.utils")
    ids = {from_utils.random_uuid() for _ in range(3)}
    assert len(ids) == 3 and all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    state = importlib.import_module("vllm.model_executor.parallel_utils.parallel_state")
    assert state.destroy_model_parallel() is None
    assert importlib.import_module("vllm.logger").init_logger("mine").name == "mine"
    save_byte_tokenizer(tmp_path)
    tokenizers = importlib.import_module("vllm.transformers_utils.tokenizer")
    tokenizer = tokenizers.get_tokenizer(str(tmp_path), trust_remote_code=True)
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


def test_a_tokenizer_takes_options(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    get_tokenizer = importlib.import_module("vllm.tokenizers").get_tokenizer
    options = {"tokenizer_mode": "auto", "revision": None, "add_bos_token": False}
    tokenizer = get_tokenizer(str(tmp_path), truncation_side="left", **options)
    assert (tokenizer.truncation_side, tokenizer.add_bos_token) == ("left", False)
    shortened = tokenizer("abc", truncation=True, max_length=2)
    assert tokenizer.decode(shortened.input_ids) == "bc"
    with pytest.raises(TypeError, match="has no option 'truncation'; leave it out"):
        get_tokenizer(str(tmp_path), truncation=True)


def test_a_chat_template_is_the_given_one_or_the_tokenizers(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    tokenizer = importlib.import_module("vllm.tokenizers").get_tokenizer(str(tmp_path))
    resolve = importlib.import_module("vllm.entrypoints.chat_utils").resolve_hf_chat_template
    assert resolve is importlib.import_module("vllm.renderers.hf").resolve_chat_template
    nothing = {"tokenizer": tokenizer, "chat_template": None, "tools": None, "model_config": None}
    assert resolve(**nothing) == tokenizer.chat_template == CHAT_TEMPLATE
    assert resolve(**{**nothing, "chat_template": "{{ mine }}"}) == "{{ mine }}"
    tokenizer.chat_template = None
    assert resolve(**nothing, trust_remote_code=False) is None
