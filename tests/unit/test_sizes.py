import pytest

from quire.sizes import (
    format_bytes,
    parse_bytes,
    parse_count,
    parse_memory,
    rounded_down,
    rounded_up,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 * 2**30),
        ("500 MB", 500 * 10**6),
        ("1.5kib", 1536),
        ("123", 123),
        ("4G", 4 * 2**30),
        ("4g", 4 * 10**9),
        ("64M", 64 * 2**20),
        ("1.5 k", 1500),
        ("2T", 2 * 2**40),
        (77, 77),
        (4e9, 4 * 10**9),
    ],
)
def test_bytes_with_units(text: float | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "4 GG", "-1GiB", "1e9"])
def test_wrong_bytes_name_the_value_and_the_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size; write bytes or a unit"):
        parse_bytes(text)


def test_a_memory_has_a_unit() -> None:
    assert parse_memory("24GiB") == parse_memory("24G") == 24 * 2**30
    with pytest.raises(ValueError, match=r"24 is 24 bytes, too few .* did you mean 24GiB\?"):
        parse_memory("24")
    with pytest.raises(ValueError, match="too few for a model; give a unit"):
        parse_memory("5000")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8k", 8000),
        ("8K", 8192),
        ("25.6k", 25600),
        ("1M", 2**20),
        ("1t", 10**12),
        ("4096", 4096),
        ("-1", -1),
        (512.0, 512),
    ],
)
def test_counts_with_units(text: float | str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["k", "8x", "1.5", "eight", 0.5, float("inf")])
def test_wrong_counts(text: float | str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_count(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.50 KiB"), (100 * 2**20, "100 MiB"), (2**40, "1.00 TiB")],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize("num_bytes", [0, 1, 1023, 24158142464, 24_158_142_463, 5 * 2**40 + 7])
def test_rounded_sizes_are_on_their_side_when_they_are_read_again(num_bytes: int) -> None:
    assert parse_bytes(rounded_down(num_bytes)) <= num_bytes <= parse_bytes(rounded_up(num_bytes))
    assert parse_bytes(rounded_up(num_bytes)) <= num_bytes * 1.02 + 1
    assert parse_bytes(rounded_down(num_bytes)) >= num_bytes * 0.98 - 1
