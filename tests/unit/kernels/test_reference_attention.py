"""The definition itself: KV goes to its slots, and plain cases equal plain softmax attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from quire.kernels.reference.attention import paged_attention, write_kv


def test_write_kv_fills_only_the_slots() -> None:
    cache = torch.zeros(2, 5, 4, 2, 3)
    k, v = torch.randn(3, 2, 3), torch.randn(3, 2, 3)
    write_kv(k, v, cache, torch.tensor([7, 16, 2]))
    assert torch.equal(cache[0, 1, 3], k[0])
    assert torch.equal(cache[0, 4, 0], k[1])
    assert torch.equal(cache[1, 0, 2], v[2])
    assert int((cache != 0).sum()) == 2 * k.numel()


def test_two_rows_over_scattered_blocks_equal_causal_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths, tables = [7, 5], [[3, 1], [4, 2]]
    cache = torch.full((2, 5, 4, 2, 8), 1e4)
    q, k, v = (torch.randn(12, heads, 8, generator=generator) for heads in (4, 2, 2))
    slots = torch.tensor(
        [
            tables[row][position // 4] * 4 + position % 4
            for row, length in enumerate(lengths)
            for position in range(length)
        ]
    )
    write_kv(k, v, cache, slots)
    got = paged_attention(
        q, cache, torch.tensor(tables), torch.tensor([0, 7, 12]), torch.tensor(lengths), scale=0.2
    )
    for rows in (slice(0, 7), slice(7, 12)):
        expected = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k[rows].transpose(0, 1)[None],
            v[rows].transpose(0, 1)[None],
            is_causal=True,
            scale=0.2,
            enable_gqa=True,
        )[0].transpose(0, 1)
        torch.testing.assert_close(got[rows], expected)


def test_window_of_one_returns_a_tokens_own_value() -> None:
    cache = torch.zeros(2, 3, 4, 1, 2)
    q, k, v = torch.randn(5, 1, 2), torch.randn(5, 1, 2), torch.randn(5, 1, 2)
    write_kv(k, v, cache, torch.tensor([4, 5, 6, 7, 8]))
    got = paged_attention(
        q,
        cache,
        torch.tensor([[1, 2]]),
        torch.tensor([0, 5]),
        torch.tensor([5]),
        scale=1.0,
        window=1,
    )
    torch.testing.assert_close(got, v)


def test_steep_slopes_leave_only_the_nearest_token() -> None:
    cache = torch.zeros(2, 3, 4, 1, 2)
    q, k, v = torch.randn(5, 2, 2), torch.randn(5, 1, 2), torch.randn(5, 1, 2)
    write_kv(k, v, cache, torch.tensor([4, 5, 6, 7, 8]))
    got = paged_attention(
        q,
        cache,
        torch.tensor([[1, 2]]),
        torch.tensor([0, 5]),
        torch.tensor([5]),
        scale=1e-6,
        alibi_slopes=(0.0, 1e4),
    )
    torch.testing.assert_close(got[:, 1], v[:, 0])
    running_mean = v[:, 0].cumsum(0) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(got[:, 0], running_mean, rtol=1e-4, atol=1e-4)


def test_a_sink_is_a_key_without_a_value() -> None:
    """Sinks equal to a token's own score leave half of its value, where it sees nothing else."""
    cache = torch.zeros(2, 2, 4, 1, 8)
    q, k, v = torch.randn(1, 2, 8), torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    write_kv(k, v, cache, torch.tensor([4]))
    where = (torch.tensor([[1]]), torch.tensor([0, 1]), torch.tensor([1]))
    sinks = (q * k).sum(-1)[0] * 0.3
    got = paged_attention(q, cache, *where, scale=0.3, sinks=sinks)
    torch.testing.assert_close(got, (v / 2).expand(1, 2, 8))


def test_values_may_be_the_first_part_of_keys() -> None:
    keys, values = torch.randn(2, 3, 4, 1, 8).unbind(0)
    values[..., :5] = keys[..., :5]
    q, table = torch.randn(6, 2, 8), torch.tensor([[2, 1]])
    where = (table, torch.tensor([0, 6]), torch.tensor([7]))
    whole = paged_attention(q, torch.stack((keys, values)), *where, scale=0.3)
    got = paged_attention(q, keys[None], *where, scale=0.3, value_dim=5)
    torch.testing.assert_close(got, whole[..., :5])
