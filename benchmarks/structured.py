"""What constrained output costs: tokens a second with a JSON schema and without.

    python benchmarks/structured.py                               # the bundled model, on a CPU
    python benchmarks/structured.py --model qwen3-0.6b            # dummy weights, on a GPU

Three loads of equally many requests in turn, several times; medians. "all" has a schema for every
request, "one" for one among the others, "none" for none. No output can end early: the schema wants
more items than there is room for. Dummy models have a made-up vocabulary of their size, with the
pieces that JSON is made of, and need neither transformers nor a tokenizer.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import string
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_parts.engines import core_of, greedy
from gpu_parts.models import CONFIGS, max_model_len, write_model

from quire import LLM
from quire.assets import TINY_CHAT
from quire.engine.grammar_gate import GrammarGate
from quire.structured_outputs.compile import GrammarCompiler
from quire.structured_outputs.token_table import TokenTable
from quire.structured_outputs.workshop import Workshop

BUNDLED = "tiny-chat"
LOADS = {"none": 0.0, "one": None, "all": 1.0}  # share of requests with a schema; None: one
ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "count": {"type": "integer", "minimum": 0, "maximum": 99999},
        "kind": {"enum": ["small", "medium", "large"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["name", "count", "kind", "tags"],
}
SCHEMA = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": ITEM, "minItems": 5000}},
    "required": ["items"],
}
PIECES = ('"', '":', '": ', '","', '", "', '{"', '"}', '"},{"', "[", "]", "[]", "{}", ": ", ", ")


def main() -> None:
    args = _arguments()
    with _engine(args) as llm:
        rates: dict[str, list[float]] = {name: [] for name in LOADS}
        for repetition in range(args.repetitions + 1):
            for name in LOADS:
                rate = _rate(llm, args, name)
                if repetition:  # the first warms up
                    rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        share = 100 * median / medians["none"]
        values = " ".join(f"{value:.0f}" for value in rates[name])
        print(f"{args.model}: {name:5}{median:10.0f} tok/s {share:6.1f} %   ({values})")


def _rate(llm: LLM, args: argparse.Namespace, load: str) -> float:
    share = LOADS[load]
    num_with = 1 if share is None else int(share * args.requests)
    prompts = [[5 + i] * args.input_len for i in range(args.requests)]
    params = [
        greedy(
            args.output_len,
            temperature=args.temperature,
            seed=i,
            structured_outputs={"json": SCHEMA} if i < num_with else None,
        )
        for i in range(args.requests)
    ]
    llm.reset_prefix_cache()
    started = time.perf_counter()
    outputs = llm.generate(prompt_token_ids=prompts, sampling_params=params, use_tqdm=False)
    took = time.perf_counter() - started
    tokens = [len(output.outputs[0].token_ids) for output in outputs]
    if tokens != [args.output_len] * args.requests:
        ends = {output.outputs[0].error or output.outputs[0].finish_reason for output in outputs}
        raise RuntimeError(f"outputs are not as long as asked: {sorted(set(tokens))}, {ends}")
    return sum(tokens) / took


@contextmanager
def _engine(args: argparse.Namespace) -> Iterator[LLM]:
    options: dict[str, Any] = {"max_num_seqs": args.requests, **json.loads(args.options)}
    if args.model == BUNDLED:
        with LLM(str(TINY_CHAT), use_tqdm_on_load=False, **options) as llm:
            yield llm
        return
    with tempfile.TemporaryDirectory() as folder:
        made = write_model(Path(folder), args.model)
        dummy = {"load_format": "dummy", "skip_tokenizer_init": True, "use_tqdm_on_load": False}
        dummy["max_model_len"] = max_model_len(args.model)
        with LLM(str(made), **{**dummy, **options}) as llm:
            _give_vocabulary(llm, CONFIGS[args.model]["vocab_size"])
            yield llm


def _give_vocabulary(llm: LLM, size: int) -> None:
    """In place of a tokenizer, which the engine was not given."""
    table = TokenTable(tokens=_made_up_tokens(size), end_token_ids=(1,))
    core_of(llm.llm_engine)._gate = GrammarGate(Workshop(GrammarCompiler(lambda: table)))
    llm.llm_engine.front.inputs.verify = lambda grammar: None  # type: ignore[method-assign]


def _made_up_tokens(size: int) -> list[bytes]:
    """Bytes, pieces of JSON, and words with and without a space before them."""
    rng = random.Random(0)
    tokens: dict[bytes, None] = dict.fromkeys(bytes([byte]) for byte in range(256))
    tokens.update(dict.fromkeys(piece.encode() for piece in PIECES))
    while len(tokens) < size - 2:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9)))
        shape = rng.random()
        if shape < 0.4:
            word = " " + word
        elif shape < 0.5:
            word = str(rng.randint(0, 999))
        elif shape < 0.6:
            word = rng.choice(PIECES) + word
        elif shape < 0.7:
            word = "".join(chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(2))
        tokens[word.encode()] = None
    return [b"", b"", *tokens]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BUNDLED, choices=[BUNDLED, *CONFIGS])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--input-len", type=int, default=32)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--options", default="{}", help="of the engine, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
