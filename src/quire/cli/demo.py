"""Watch the bundled model answer: concurrent prompts, a chat with memory, and the KV blocks.

It answers prompts of several kinds in one batch, the last of them twice from one prompt (`n=2`),
then holds a short chat. All of it is done with `LLM`; quire/cli/demo.py is short and shows how.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import quire
from quire.args import EngineArgs
from quire.cli.block_picture import draw, num_used
from quire.cli.conversation import Conversation
from quire.cli.engine_flags import add_engine_flags, engine_args, set_up_log
from quire.cli.remote_flags import refuse_served_name
from quire.cli.streaming import InOrder, stream_all
from quire.kv_fit import NUM_NULL_BLOCKS
from quire.plan import make_plan

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.prompts import PromptType
    from quire.sampling_params import SamplingParams

SYSTEM = "You are a helpful assistant. Answer as well as you can."
TEXT = "The capital of France is"
QUESTIONS = (
    "What is the capital of Japan?",
    "What is 17 + 25?",
    "Which day comes after Tuesday?",
    "How do you spell 'window'?",
    "法国的首都是哪里？",
)
STORY = "Tell me a short story."  # n=2: both completions share the prompt's blocks
CHAT = ("My name is Alia.", "What is my name?")
MAX_TOKENS = 96
NUM_BLOCKS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from quire.llm import LLM

    refuse_served_name(arguments)
    started = time.perf_counter()
    set_up_log(arguments)
    args = engine_args(arguments)
    if args.max_model_len is None:
        args.max_model_len = "auto"
    if args.num_gpu_blocks_override is None and args.kv_cache_memory_bytes is None:
        args.num_gpu_blocks_override = _num_blocks(args)
    with LLM.from_engine_args(args) as llm:
        colours = sys.stdout.isatty()
        ready = time.perf_counter() - started
        blocks = llm.stats().num_blocks
        name = Path(args.model).name
        print(f"Quire {quire.__version__}: {name} ready in {ready:.1f} s, {blocks} KV blocks\n")
        measured = _answer_all(llm, colours)
        print(f"\n{measured.summary()}\n")
        _chat(llm)
        print("\nKV blocks at the busiest moment:")
        print(draw(measured.busiest, colours=colours))
        print("KV blocks now (cached ones are reused by prompts with the same prefix):")
        print(draw(bytes(llm.block_map()), colours=colours))
    return 0


def _num_blocks(args: EngineArgs) -> int:
    """KV blocks: few, so that the picture shows them fill, but enough for a given max_model_len."""
    if args.max_model_len == "auto":
        return NUM_BLOCKS
    plan = make_plan(args)
    return max(NUM_BLOCKS, plan.fit.num_blocks_for(plan.max_model_len) + NUM_NULL_BLOCKS)


@dataclass
class Measured:
    """Figures collected while the prompts run."""

    started: float = field(default_factory=time.perf_counter)
    first_token: float = 0.0
    ended: float = 0.0
    num_requests: int = 0
    num_tokens: int = 0
    busiest: bytes = b""

    def see(self, blocks: bytes) -> None:
        if num_used(blocks) > num_used(self.busiest):
            self.busiest = blocks

    def summary(self) -> str:
        took = self.ended - self.started
        return (
            f"{self.num_requests} requests at once: {self.num_tokens} tokens in {took:.2f} s, "
            f"{self.num_tokens / took:.0f} tokens/s, first token after "
            f"{(self.first_token - self.started) * 1000:.0f} ms"
        )


def _answer_all(llm: LLM, colours: bool) -> Measured:
    """Print all answers as they come; on a terminal, show below them how the blocks fill."""
    requests = _requests(llm)
    titles = [TEXT, *(f"{question}\n  " for question in (*QUESTIONS, STORY, STORY))]
    screen = InOrder(len(titles), lambda index: _bold(titles[index], colours))
    measured = Measured(num_requests=len(requests))
    with _live_picture(colours) as show:
        for index, completion in stream_all(llm, requests):
            measured.first_token = measured.first_token or time.perf_counter()
            measured.num_tokens += len(completion.token_ids)
            blocks = bytes(llm.block_map())
            measured.see(blocks)
            show(screen.feed(index, completion.text, completion.finished()), blocks)
        measured.ended = time.perf_counter()
    return measured


def _requests(llm: LLM) -> list[tuple[PromptType, SamplingParams]]:
    """A text to continue, questions in chat form, and a story with two completions."""
    from quire.sampling_params import SamplingParams

    greedy = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    twice = SamplingParams(temperature=0.8, seed=1, n=2, max_tokens=MAX_TOKENS)
    text = dataclasses.replace(greedy, stop=["."], include_stop_str_in_output=True)
    questions = [(_chat_prompt(llm, question), greedy) for question in QUESTIONS]
    return [(TEXT, text), *questions, (_chat_prompt(llm, STORY), twice)]


def _chat_prompt(llm: LLM, question: str) -> PromptType:
    """The question as the model's chat template writes it, ready for the answer."""
    tokenizer = llm.get_tokenizer()
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return {"prompt_token_ids": tokenizer.encode(str(text), add_special_tokens=False)}


@contextlib.contextmanager
def _live_picture(on_terminal: bool) -> Iterator[Callable[[str, bytes], None]]:
    """A function that shows more text, and on a terminal the blocks below all of it."""
    if not on_terminal:
        yield lambda text, blocks: print(text, end="", flush=True)
        return
    from rich.live import Live
    from rich.text import Text

    shown = ""
    with Live(refresh_per_second=15, vertical_overflow="visible") as live:

        def show(text: str, blocks: bytes) -> None:
            nonlocal shown
            shown += text
            live.update(Text.from_ansi(f"{shown}\n\n{draw(blocks, colours=True)}"))

        yield show
        live.update(Text.from_ansi(shown))


def _chat(llm: LLM) -> None:
    from quire.sampling_params import SamplingParams

    conversation = Conversation(llm, SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS))
    for line in CHAT:
        print(f"> {line}")
        for piece in conversation.say(line):
            print(piece, end="", flush=True)
        print()


def _bold(text: str, colours: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colours else text
