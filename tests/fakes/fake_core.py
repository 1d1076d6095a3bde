"""A deterministic engine core without a model: completion i repeats the prompt, shifted by i.

Speaks what the real core speaks; some prompts make it fail in the ways a real one can.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field

from quire.config import EngineConfig
from quire.engine.core_loop import ReportPhase
from quire.request import EngineRequest, FinishReason, Watch
from quire.step_output import CompletionDelta, CompletionTiming, EngineFacts, EngineStats

# First tokens of prompts with a meaning.
REFUSE = 990  # add_request raises ValueError
FAIL_ALONE = 991  # the request ends with an error in its first step
FAIL_STEP = 992  # the step raises
EXIT = 993  # the process exits with status 3
KILL = 994  # the process is killed
SYSTEM_EXIT = 995  # a library thinks that it may end the program

EOS = 2


@dataclass
class _Completion:
    request: EngineRequest
    index: int
    token_ids: list[int] = field(default_factory=list)
    num_sent: int = 0

    def next_token(self) -> int:
        prompt = self.request.prompt_token_ids
        return prompt[(len(self.token_ids) + self.index) % len(prompt)]

    def end(self) -> FinishReason | None:
        if self.token_ids and self.token_ids[-1] in self.request.sampling.stop_token_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.token_ids) >= self.request.max_tokens else None

    def aborted(self) -> CompletionDelta:
        return CompletionDelta(
            request_id=self.request.request_id,
            serial=self.request.serial,
            index=self.index,
            new_token_ids=self.token_ids[self.num_sent :],
            finish_reason=FinishReason.ABORT,
        )


class FakeCore:
    """`EngineCore` by shape."""

    def __init__(self, config: EngineConfig) -> None:
        if config.model.model == "missing":
            raise FileNotFoundError("no such model: missing")
        self.facts = EngineFacts(
            num_blocks=9,
            block_size=16,
            max_num_seqs=8,
            max_model_len=config.model.max_model_len,
            weight_bytes=1000,
            kv_cache_bytes=2000,
            attention_backend="fake",
        )
        self.running: dict[tuple[str, int], _Completion] = {}
        self.ends: list[CompletionDelta] = []
        self.num_steps = 0
        self.num_warm_ups = 0
        self.begun_with: list[int] = []  # completions
        self.is_closed = False

    def warm_up_more(self) -> bool:
        self.num_warm_ups += 1
        return self.num_warm_ups < 3

    def seconds_to_spare(self) -> float:
        return 0.0

    def add_request(self, request: EngineRequest) -> None:
        if request.prompt_token_ids[0] == REFUSE:
            raise ValueError("refused by the core")
        for index in range(request.num_completions):
            self.running[request.request_id, index] = _Completion(request, index)

    def abort(self, request_ids: Iterable[str], *, keeps_tokens: bool = False) -> None:
        ids = set(request_ids)
        given_up = [c for key, c in self.running.items() if key[0] in ids]
        self.running = {key: c for key, c in self.running.items() if key[0] not in ids}
        if keeps_tokens:
            self.ends += [completion.aborted() for completion in given_up]

    def finish(self, request_id: str, index: int) -> None:
        self.running.pop((request_id, index), None)

    @property
    def has_unfinished(self) -> bool:
        return bool(self.running or self.ends)

    def begin(self) -> None:
        self.begun_with.append(len(self.running))

    def step(self) -> list[CompletionDelta]:
        self.num_steps += 1
        return self.take_ends() + self._advance_all()

    def take_ends(self) -> list[CompletionDelta]:
        ends, self.ends = self.ends, []
        return ends

    def _advance_all(self) -> list[CompletionDelta]:
        deltas = [self._advance(completion) for completion in list(self.running.values())]
        return [delta for delta in deltas if delta is not None]

    def stats(self) -> EngineStats:
        return EngineStats(num_running=len(self.running), num_steps=self.num_steps, block_size=16)

    def block_map(self) -> bytes:
        return bytes([0, 1, 2, 3])

    def reset_prefix_cache(self) -> bool:
        return not self.running

    def close(self) -> None:
        self.is_closed = True

    def _advance(self, completion: _Completion) -> CompletionDelta | None:
        request, index = completion.request, completion.index
        first = request.prompt_token_ids[0]
        if first == FAIL_STEP:
            raise RuntimeError("the fake device is on fire")
        if first == SYSTEM_EXIT:
            raise SystemExit("the licence has expired")
        if first == EXIT:
            os._exit(3)
        if first == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if first == FAIL_ALONE:
            del self.running[request.request_id, index]
            return CompletionDelta(
                request_id=request.request_id,
                serial=request.serial,
                index=index,
                new_token_ids=[],
                finish_reason=FinishReason.ERROR,
                error="this request failed",
                timing=CompletionTiming(arrival_time=request.arrival_time),
            )
        completion.token_ids.append(completion.next_token())
        end = completion.end()
        if end is not None:
            del self.running[request.request_id, index]
        elif request.watch is Watch.AT_END or request.beam is not None:
            return None
        new = completion.token_ids[completion.num_sent :]
        completion.num_sent = len(completion.token_ids)
        return CompletionDelta(
            request_id=request.request_id,
            serial=request.serial,
            index=index,
            new_token_ids=new,
            finish_reason=end,
            timing=CompletionTiming(arrival_time=request.arrival_time) if end else None,
            cumulative_logprob=-1.0 * len(completion.token_ids) if request.beam else None,
            score=-1.0 - index if request.beam else None,
        )


def build_fake_core(config: EngineConfig, report: ReportPhase) -> FakeCore:
    report("weights")
    core = FakeCore(config)
    logging.getLogger("quire.fake").info("engine ready")
    return core


BUILD_FAKE_CORE = f"{__name__}:{build_fake_core.__name__}"
