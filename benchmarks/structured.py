"""What structured output costs: tokens a second and step times, with a JSON schema and without.

    python benchmarks/structured.py                               # the bundled model, on a CPU
    python benchmarks/structured.py --model qwen3-0.6b            # dummy weights, on a GPU
    python benchmarks/structured.py --schema mine.json            # another schema

Loads with equal numbers of requests take turns, several times. Reported are the median rate and,
over all steps, the median, 99th percentile and maximum: masks that are slow now and then do not
show in a mean. In "all" every request has a schema, in "one" a single one, in "none" none; "limits"
is "all" with strings of limited length, which a random model fills to the last character: near its
limit, a string's mask takes a hundred times as long as elsewhere. Percentages are medians over the
repetitions. No output can end early: each is a list of the schema's items, longer than there is
room for. Dummy models have a made-up vocabulary of their size that contains pieces of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import truediv
from pathlib import Path
from typing import Any

from gpu_parts.engines import greedy
from gpu_parts.json_load import ITEM, LIMITED, endless, write_tokenizer
from gpu_parts.models import CONFIGS, max_model_len, write_model

from quire import EngineArgs, LLMEngine
from quire.assets import TINY_CHAT
from quire.sampling_params import RequestOutputKind

BUNDLED = "tiny-chat"
LOADS = ("none", "one", "all")
NUM_FIRST_STEPS = 10  # not timed, since they also compute prompts


@dataclass(slots=True)
class _Measured:
    """Figures of one load."""

    rates: list[float] = field(default_factory=list)  # tokens a second, of each repetition
    step_ms: list[float] = field(default_factory=list)  # of all repetitions


def main() -> None:
    args = _arguments()
    schemas = dict.fromkeys(LOADS, endless(ITEM)) | {"limits": endless(LIMITED)}
    if args.schema:
        schemas = dict.fromkeys(LOADS, endless(json.loads(args.schema.read_text())))
    with _engine(args) as engine:
        found = {name: _Measured() for name in schemas}
        for repetition in range(args.repetitions + 1):
            order = list(schemas) if repetition % 2 else list(schemas)[::-1]
            for name in order:  # alternating order, since a machine's speed drifts
                rate, step_ms = _run(engine, args, name, schemas[name])
                if repetition:  # the first warms up
                    found[name].rates.append(rate)
                    found[name].step_ms += step_ms
    for name, one in found.items():
        _report(args.model, name, one, found["none"])


def _report(model: str, name: str, found: _Measured, none: _Measured) -> None:
    median, step_ms = statistics.median(found.rates), sorted(found.step_ms)
    share = statistics.median(map(truediv, found.rates, none.rates))
    middle, late = (step_ms[int(share * len(step_ms))] for share in (0.5, 0.99))
    rates = " ".join(f"{rate:.0f}" for rate in found.rates)
    print(
        f"{model}: {name:7}{median:10.0f} tok/s {100 * share:6.1f} %   steps p50 "
        f"{middle:.2f} p99 {late:.2f} max {step_ms[-1]:.2f} ms   ({rates})"
    )


def _run(
    engine: LLMEngine, args: argparse.Namespace, load: str, schema: dict[str, Any]
) -> tuple[float, list[float]]:
    """Tokens a second, and milliseconds of each step but the first ones."""
    num_with = {"none": 0, "one": 1}.get(load, args.requests)
    engine.reset_prefix_cache()
    started = time.perf_counter()
    for i in range(args.requests):
        params = greedy(
            args.output_len,
            temperature=args.temperature,
            seed=i,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs={"json": schema} if i < num_with else None,
        )
        engine.add_request(f"{load} {i}", None, params, prompt_token_ids=[5 + i] * args.input_len)
    outputs, step_ms = [], []
    while engine.has_unfinished_requests():
        began = time.perf_counter()
        outputs += [one.outputs[0] for one in engine.step() if one.finished]
        step_ms.append(1000 * (time.perf_counter() - began))
    took = time.perf_counter() - started
    tokens = [len(output.token_ids) for output in outputs]
    if tokens != [args.output_len] * args.requests:
        ends = {output.error or output.finish_reason for output in outputs}
        raise RuntimeError(f"outputs are not as long as asked: {sorted(set(tokens))}, {ends}")
    return sum(tokens) / took, step_ms[NUM_FIRST_STEPS:]


@contextmanager
def _engine(args: argparse.Namespace) -> Iterator[LLMEngine]:
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"model": str(TINY_CHAT)}
        if args.model != BUNDLED:
            made = write_model(Path(folder), args.model)
            write_tokenizer(made, CONFIGS[args.model]["vocab_size"])
            options = {"model": str(made), "load_format": "dummy"}
            options["max_model_len"] = max_model_len(args.model)
        options |= {"max_num_seqs": args.requests, **json.loads(args.options)}
        engine = LLMEngine.from_engine_args(EngineArgs(**options))
        try:
            yield engine
        finally:
            engine.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BUNDLED, choices=[BUNDLED, *CONFIGS])
    parser.add_argument("--schema", type=Path, help="JSON file: schema of each item of the lists")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--input-len", type=int, default=32)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--options", default="{}", help="of the engine, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
