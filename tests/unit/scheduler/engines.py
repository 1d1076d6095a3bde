"""Engines on a fake device that checks every block it reads, and what its model says by itself."""

from __future__ import annotations

from quire.config import SchedulerConfig
from quire.engine.core import EngineCore
from quire.kv_cache.manager import KVCacheManager
from quire.request import EngineRequest, RowSampling
from quire.scheduler.scheduler import Scheduler
from quire.step_output import CompletionDelta
from tests.fakes.configs import FAKE_FACTS
from tests.fakes.device import FakeDevice, next_token
from tests.fakes.gates import open_gate

MAX_LEN = 64


def build(
    *,
    num_blocks: int = 200,
    block_size: int = 4,
    depth: int = 1,
    windows: tuple[int | None, ...] = (None,),
    prefix_caching: bool = True,
    device: FakeDevice | None = None,
    **limits: object,
) -> tuple[EngineCore, FakeDevice]:
    settings_ = {"max_num_seqs": 8, "max_num_batched_tokens": 16, **limits}
    config = SchedulerConfig(steps_in_flight=depth, **settings_)  # type: ignore[arg-type]
    kv = KVCacheManager(
        num_blocks=num_blocks,
        block_size=block_size,
        windows=windows,
        enable_prefix_caching=prefix_caching,
    )
    device = device or FakeDevice(block_size, windows)
    core = EngineCore(Scheduler(config, kv, MAX_LEN), device, FAKE_FACTS, depth, open_gate())  # type: ignore[arg-type]
    return core, device


def request(name: str, prompt: list[int], max_tokens: int = 8, **fields: object) -> EngineRequest:
    sampling = fields.pop("sampling", RowSampling())
    return EngineRequest(
        request_id=name,
        prompt_token_ids=prompt,
        sampling=sampling,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        **fields,  # type: ignore[arg-type]
    )


def run(core: EngineCore, requests: list[EngineRequest]) -> dict[tuple[str, int], list[int]]:
    for each in requests:
        core.add_request(each)
    return drain(core)


def drain(core: EngineCore) -> dict[tuple[str, int], list[int]]:
    tokens: dict[tuple[str, int], list[int]] = {}
    for _ in range(5000):
        for delta in core.step():
            tokens.setdefault((delta.request_id, delta.index), []).extend(delta.new_token_ids)
        core.check_integrity()
        if not core.has_unfinished:
            break
    assert not core.has_unfinished, "a request never ends"
    while core.step():  # late results of rows that have ended say nothing
        raise AssertionError("news of a finished request")
    return tokens


def expected(each: EngineRequest) -> dict[tuple[str, int], list[int]]:
    """What the fake model says without any engine."""
    answers = {}
    for index in range(each.n):
        tokens = list(each.prompt_token_ids)
        while len(tokens) < len(each.prompt_token_ids) + each.max_tokens:
            tokens.append(next_token(tokens, each.row_seed(index)))
            if tokens[-1] in each.sampling.stop_token_ids:
                break
        answers[(each.request_id, index)] = tokens[len(each.prompt_token_ids) :]
    return answers


def last_deltas(core: EngineCore) -> dict[str, CompletionDelta]:
    last = {}
    while core.has_unfinished:
        for delta in core.step():
            last[delta.request_id] = delta
        core.check_integrity()
    return last
