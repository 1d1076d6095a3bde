from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.serve_parts.peer import ALL_AT_ONCE, PEER
from benchmarks.serve_parts.report import COLUMNS, Line, lines_of, offline_line, table
from benchmarks.serve_parts.tokenizer import write_tokenizer

from quire.tokenizer.loading import load_tokenizer


def result(value: float) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, value)


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.what: line for line in lines}


def test_latencies_shall_be_no_worse_and_throughput_better() -> None:
    at_rate = by_name(lines_of("llama-3.1-8b", 4.0, result(30.0)))
    assert at_rate["mean_ttft_ms"].peer == 26 and at_rate["mean_ttft_ms"].met is False
    assert at_rate["p99_ttft_ms"].met is True
    assert at_rate["output_throughput"].met is None
    at_once = by_name(lines_of("qwen3-0.6b", ALL_AT_ONCE, result(32_000.0)))
    goal = at_once["output_throughput"].goal
    assert goal == pytest.approx(1.4 * 23280) and at_once["output_throughput"].met is False
    assert at_once["mean_ttft_ms"].met is None


def test_the_server_shall_be_nearly_as_fast_as_no_server() -> None:
    assert offline_line("llama-3.1-8b", 96.0, 100.0).met is True
    assert offline_line("llama-3.1-8b", 94.0, 100.0).met is False
    assert offline_line("tiny", 10.0, 100.0).met is None


def test_the_table_has_every_figure() -> None:
    lines = [line for name in PEER for line in lines_of(name, 4.0, result(1234.0))]
    rows = table(lines).splitlines()
    assert len(rows) == 2 + len(lines)
    assert rows[2] == "| llama-3.1-8b | 4/s | mean ttft ms | 1,234 | 26 | 26 | missed |"


def test_every_token_of_the_made_up_tokenizer_has_a_text(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 500)
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 500
    assert tokenizer.decode([400, 401]) == "w400w401"
    text = "Größe: 5 €\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
