"""An `LLM` without a model."""

from __future__ import annotations

from pathlib import Path

from quire.engine.llm_engine import LLMEngine
from quire.llm import LLM
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE


def llm_on_fake_core(tokenizer: Path) -> LLM:
    """With the tokenizer of a folder; its core repeats the prompt."""
    config = fake_config(
        folder=tokenizer,
        skip_tokenizer_init=False,
        vocab_size=1000,
        generation_config={"max_new_tokens": 2},
    )
    return LLM.from_engine(LLMEngine(config, build=BUILD_FAKE_CORE))
