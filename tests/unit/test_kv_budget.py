import dataclasses

import pytest

from quire.config import CacheConfig
from quire.errors import OutOfMemoryError
from quire.kv_budget import Memory, ToldSize, chosen_bytes, with_kv_memory
from quire.kv_fit import KVFit
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.configs import fake_config

GIB = 2**30
# Llama 3.1 8B in 16 bits: 128 KiB a token.
LAYOUT = KVLayout.of((LayerKV(num_kv_heads=8, head_dim=128),) * 32)
FIT = KVFit(layout=LAYOUT, block_size=16, element_size=2, max_step_tokens=2048)


@pytest.mark.parametrize(
    ("length", "free", "chosen"),
    [
        (8192, 8 * GIB, 2 * GIB),  # a quarter
        (8192, 100 * GIB, 4 * GIB),  # as much as a CPU fills in reasonable time
        (131072, 100 * GIB, FIT.bytes_for(131072)),  # but a whole request
        (131072, 10 * GIB, 6 * GIB),  # or 60 % of what is free
        (16, 100 * GIB, FIT.bytes_for(16, 4)),  # and no more than can be used
    ],
)
def test_default_on_a_cpu(length: int, free: int, chosen: int) -> None:
    num_seqs = 4 if length == 16 else 256
    memory = Memory(device="cpu", total=free + GIB, free=free + GIB, weights=GIB)
    assert chosen_bytes(None, FIT, memory, length, num_seqs) == chosen


def test_all_that_a_gpu_has_left_but_no_more_than_can_be_used() -> None:
    memory = Memory(device="cuda", total=24 * GIB, free=24 * GIB, weights=16 * GIB)
    assert chosen_bytes(None, FIT, memory, 8192, 256) == 8 * GIB
    assert chosen_bytes(None, FIT, memory, 16, 4) == FIT.bytes_for(16, 4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_told_size_is_taken_unless_it_cannot_be_used(device: str) -> None:
    memory = Memory(device=device, total=24 * GIB, free=24 * GIB, weights=16 * GIB)
    told = ToldSize(said="kv_cache_memory_bytes=1GiB", num_bytes=GIB)
    assert chosen_bytes(told, FIT, memory, 8192, 256) == GIB
    assert chosen_bytes(told, FIT, memory, 16, 4) == FIT.bytes_for(16, 4)


def test_a_size_told_in_blocks_is_taken_whatever_can_be_used() -> None:
    memory = Memory(device="cpu", total=24 * GIB, free=24 * GIB, weights=16 * GIB)
    told = ToldSize(said="num_gpu_blocks_override=512", num_bytes=GIB, in_blocks=True)
    assert chosen_bytes(told, FIT, memory, 16, 4) == GIB


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cpu", "9.00 GiB, and 8.00 GiB of memory are free; .* or free"),
        ("cuda", "GPU has 8.00 GiB"),
    ],
)
@pytest.mark.parametrize("weights", [8 * GIB, 9 * GIB])
def test_weights_that_do_not_fit_are_refused_before_they_are_read(
    device: str, message: str, weights: int
) -> None:
    memory = Memory(device=device, total=8 * GIB, free=8 * GIB, weights=weights)
    with pytest.raises(OutOfMemoryError, match=message.replace("9", str(weights // GIB))):
        with_kv_memory(fake_config(max_model_len=100), LAYOUT, memory)


@pytest.mark.parametrize(
    ("device", "message"), [("cpu", "9.00 GiB, and there are 8.00 GiB"), ("cuda", "GPU has 8.00")]
)
def test_no_told_size_makes_up_for_weights_that_do_not_fit(device: str, message: str) -> None:
    config = dataclasses.replace(fake_config(), cache=CacheConfig(num_blocks=5))
    memory = Memory(device=device, total=8 * GIB, free=20 * GIB, weights=9 * GIB)
    with pytest.raises(OutOfMemoryError, match=message):
        with_kv_memory(config, LAYOUT, memory)


def test_a_gpu_is_measured_later_unless_a_size_is_given() -> None:
    config = fake_config(max_model_len=100)
    config = dataclasses.replace(config, cache=CacheConfig())
    memory = Memory(device="cuda", total=GIB, free=GIB, weights=0)
    assert with_kv_memory(config, LAYOUT, memory) is config
    auto = dataclasses.replace(config.model, max_model_len_source="auto")
    config = dataclasses.replace(config, model=auto)
    assert with_kv_memory(config, LAYOUT, memory) is config
