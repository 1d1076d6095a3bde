import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.config import CacheConfig, EngineConfig
from quire.errors import OutOfMemoryError
from quire.kv_cache.manager import KVCacheManager
from quire.kv_fit import UNLIMITED, KVFit, check_kv_fits
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.configs import fake_config

FULL = LayerKV(num_kv_heads=2, head_dim=8)
WINDOW = LayerKV(num_kv_heads=2, head_dim=8, window=20)


def fit_of(*layers: LayerKV, max_step_tokens: int = 16) -> KVFit:
    return KVFit(
        layout=KVLayout.of(layers), block_size=8, element_size=2, max_step_tokens=max_step_tokens
    )


def test_full_attention_takes_one_block_per_block_size_tokens() -> None:
    fit = fit_of(FULL, FULL)
    assert fit.bytes_per_block == 2 * 2 * 2 * 8 * 8 * 2
    assert [fit.num_blocks_for(n) for n in (1, 8, 9, 80)] == [1, 1, 2, 10]
    assert fit.bytes_for(80, num_requests=3) == 31 * fit.bytes_per_block


def test_a_window_takes_no_more_blocks_than_it_sees() -> None:
    fit = fit_of(WINDOW)
    assert fit.num_blocks_for(16) == 2
    assert fit.num_blocks_for(10_000) == fit.num_blocks_for(100_000) == 6
    assert fit.longest_request(7) == UNLIMITED


@given(
    layers=st.lists(st.sampled_from([FULL, WINDOW]), min_size=1, max_size=5),
    num_blocks=st.integers(0, 60),
)
def test_longest_request_is_the_longest(layers: list[LayerKV], num_blocks: int) -> None:
    fit = fit_of(*layers)
    longest = fit.longest_request(num_blocks)
    assert longest == 0 or fit.num_blocks_for(longest) <= num_blocks - 1
    assert longest == UNLIMITED or fit.num_blocks_for(longest + 1) > num_blocks - 1


@pytest.mark.parametrize("layers", [(FULL,), (WINDOW,), (FULL, WINDOW), (WINDOW, FULL, FULL)])
@pytest.mark.parametrize("step", [1, 5, 16])
def test_a_request_that_fits_never_runs_out_of_blocks(
    layers: tuple[LayerKV, ...], step: int
) -> None:
    """The bound holds for the manager that gives the blocks, whatever the chunks."""
    fit = fit_of(*layers)
    length = 150
    manager = KVCacheManager(
        num_blocks=fit.num_blocks_for(length) + 1,
        block_size=fit.block_size,
        windows=tuple(group.window for group in fit.layout.groups),
        enable_prefix_caching=False,
    )
    table = manager.new_table()
    for start in range(0, length, step):
        manager.release_passed(table, start)
        assert manager.grow(table, start, min(start + step, length)) is not None, start


def config_of(**cache: int) -> EngineConfig:
    config = fake_config(max_model_len=100)
    return dataclasses.replace(config, cache=CacheConfig(block_size=8, **cache))


def test_enough_blocks_say_nothing() -> None:
    check_kv_fits(config_of(), KVLayout.of((FULL,)), num_blocks=14)


def test_too_few_blocks_keep_the_sentence_that_people_search_for() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        check_kv_fits(config_of(memory_bytes=12_288), KVLayout.of((FULL,)), num_blocks=12)
    assert str(caught.value) == (
        "The model's max seq len (100) is larger than the maximum number of tokens that can be "
        "stored in KV cache (88). Try increasing kv_cache_memory_bytes or decreasing max_model_len "
        "when initializing the engine. Needed 14.0 KiB (14 blocks), available 12.0 KiB (12 blocks);"
        " the longest max_model_len that fits is 88, and max_model_len='auto' chooses it."
    )


@pytest.mark.parametrize("num_blocks", [-3, 0, 1])
def test_no_blocks_at_all(num_blocks: int) -> None:
    with pytest.raises(
        OutOfMemoryError,
        match=r"^No available memory for the cache blocks\. Try increasing num_gpu_blocks_override",
    ):
        check_kv_fits(config_of(num_blocks=1), KVLayout.of((FULL,)), num_blocks)
