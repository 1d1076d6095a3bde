"""The progress bar of an offline call: requests done, and tokens a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from quire.outputs import RequestOutput
from quire.standard_streams import Stderr, has_onlooker

UseTqdm = bool | Callable[..., Any] | None


class Progress:
    """Shows a bar if ``use_tqdm`` is True; a callable makes one as ``tqdm.tqdm`` does.

    None shows it only in a terminal or a notebook: elsewhere it would fill a log.
    """

    def __init__(self, num_requests: int, use_tqdm: UseTqdm) -> None:
        self._num_requests = num_requests
        self._use_tqdm = use_tqdm
        self._bar: Any = None  # tqdm's, or one of the caller's
        self._num_in = self._num_out = 0

    def __enter__(self) -> Progress:
        make_bar = self._make_bar() if self._num_requests > 0 else None
        if make_bar is not None:
            self._started = time.perf_counter()
            self._bar = make_bar(
                total=self._num_requests, desc="Processed prompts", dynamic_ncols=True
            )
        return self

    def add(self, output: RequestOutput) -> None:
        """One request has finished."""
        if self._bar is None:
            return
        self._num_in += len(output.prompt_token_ids or [])
        self._num_out += sum(len(completion.token_ids) for completion in output.outputs)
        elapsed_s = max(time.perf_counter() - self._started, 1e-9)
        # Assigned, since a caller's own bar need not have tqdm's other methods.
        self._bar.postfix = (
            f"input {self._num_in / elapsed_s:.1f} tok/s, "
            f"output {self._num_out / elapsed_s:.1f} tok/s"
        )
        self._bar.update(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _make_bar(self) -> Callable[..., Any] | None:
        if callable(self._use_tqdm):
            return self._use_tqdm
        if not (has_onlooker() if self._use_tqdm is None else self._use_tqdm):
            return None
        from tqdm.auto import tqdm

        return partial(tqdm, file=Stderr())
