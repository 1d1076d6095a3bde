"""One thread for each test process, kernels interpreted where there is no GPU, and no settings from
the developer's own environment or from an earlier test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from quire import env

# Each flag has a variable of its own, and the libraries and clients that tests use read others.
_PREFIXES = ("QUIRE_", "VLLM_", "HF_", "MODELSCOPE_", "OPENAI_", "ANTHROPIC_", "OTEL_")
_KEPT = {"OMP_NUM_THREADS", "XDG_CACHE_HOME"}  # set below; where Playwright has its browsers


def _forget_settings() -> None:
    read = {*env.OF_OTHERS, *(name for variable in env.REGISTRY for name in variable.names)}
    for name in set(os.environ) - _KEPT:
        if name in read or name.startswith(_PREFIXES):
            del os.environ[name]


# Before anything is imported that reads its own once, and before a fixture of the whole run starts
# a server.
_forget_settings()
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"


# The same examples in every run, so that a failure belongs to a change; `make soak` draws others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer of bytes."""
    from tests.fakes.byte_tokenizer import save_byte_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture(params=[1, 3])
def one_and_three_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of torch and of our own kernels on a CPU."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hears_hangup() -> Iterator[None]:
    """Who runs the tests may have SIGHUP ignored, as nohup does; then all that they start would."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _clean_environment() -> None:
    _forget_settings()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("quire")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    level, logger.propagate, logger.handlers = before
    logger.setLevel(level)
