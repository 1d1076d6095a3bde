"""What programs written for vLLM look for inside an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quire.engine.async_engine import AsyncLLM
from tests.fakes.byte_tokenizer import VOCAB_SIZE, save_byte_tokenizer
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[AsyncLLM]:
    save_byte_tokenizer(tmp_path)
    config = fake_config(folder=tmp_path, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    engine = AsyncLLM(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    yield engine
    engine.shutdown()


def test_engine_inside_is_the_engine(engine: AsyncLLM) -> None:
    inner = engine.engine
    assert inner.model_config is engine.model_config
    assert inner.get_num_unfinished_requests() == 0
    inner.tokenizer = tokenizer = inner.tokenizer.tokenizer
    assert engine.tokenizer is not None
    assert engine.tokenizer.tokenizer is tokenizer
    inner.model_config = config = object()
    assert engine.model_config is config
    with pytest.raises(AttributeError, match="'AsyncLLM' object has no attribute 'scheduler'"):
        inner.scheduler  # noqa: B018


def test_what_an_executor_is_told_has_no_effect(engine: AsyncLLM) -> None:
    """As ms-swift does before it answers in another event loop."""
    assert hasattr(engine, "engine")
    engine.engine.model_executor.parallel_worker_tasks = None
    with pytest.raises(AttributeError, match=r"model_executor\.driver_worker is not built yet: "):
        engine.engine.model_executor.driver_worker  # noqa: B018


def test_config_has_the_model_alone(engine: AsyncLLM) -> None:
    assert engine.vllm_config.model_config is engine.model_config
    with pytest.raises(AttributeError, match=r"^vllm_config\.cache_config is not built yet"):
        engine.vllm_config.cache_config  # noqa: B018
