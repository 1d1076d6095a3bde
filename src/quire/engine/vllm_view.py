"""An engine's parts by vLLM's names, for programs that were written for vLLM. Knows only its
model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from quire.engine.async_engine import AsyncLLM
    from quire.engine.model_view import ModelConfigView


class VllmConfigView:
    """`vllm_config` with the only part that is like vLLM's: ``model_config``."""

    def __init__(self, model_config: ModelConfigView) -> None:
        self.model_config = model_config

    if not TYPE_CHECKING:  # so that type checkers still report unknown names

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"vllm_config.{name} is not built yet: only vllm_config.model_config is; Quire's "
                "own settings are in the engine's config (model, cache, scheduler, load, device)"
            )


class InnerEngineView:
    """`AsyncLLM.engine` of older versions: the engine itself, and a ``model_executor``."""

    def __init__(self, engine: AsyncLLM) -> None:
        object.__setattr__(self, "_engine", engine)

    @property
    def model_executor(self) -> ExecutorView:
        return ExecutorView()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._engine, name, value)


class ExecutorView:
    """A stand-in: programs reset its workers' tasks before they change the event loop. Assignments
    have no effect."""

    def __setattr__(self, name: str, value: object) -> None:
        pass

    if not TYPE_CHECKING:  # so that type checkers still report unknown names

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"model_executor.{name} is not built yet: the model of a running engine cannot be "
                "reached"
            )
