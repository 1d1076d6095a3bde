"""`vllm_config` of an engine, for programs that were written for vLLM. Knows only its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from quire.engine.model_view import ModelConfigView


class VllmConfigView:
    """Of the parts of vLLM's own only the model's is alike."""

    def __init__(self, model_config: ModelConfigView) -> None:
        self.model_config = model_config

    if not TYPE_CHECKING:  # a type checker shall go on telling that a name does not exist

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"vllm_config.{name} is not built yet: only vllm_config.model_config is; Quire's "
                "own settings are in the engine's config (model, cache, scheduler, load, device)"
            )
