"""Many requests in one asyncio program. Usage: python examples/async_engine.py [MODEL]"""

import asyncio
import sys

from quire import AsyncEngineArgs, AsyncLLMEngine, SamplingParams

PROMPTS = ["The capital of France is", "The capital of Japan is", "Once upon a time"]


async def answer(engine: AsyncLLMEngine, request_id: str, prompt: str) -> str:
    text = ""
    params = SamplingParams(temperature=0.0, max_tokens=32)
    async for output in engine.generate(prompt, params, request_id):
        text = output.outputs[0].text  # everything so far
    return text


async def serve(engine: AsyncLLMEngine) -> None:
    answers = [answer(engine, str(i), prompt) for i, prompt in enumerate(PROMPTS)]
    for prompt, text in zip(PROMPTS, await asyncio.gather(*answers), strict=True):
        print(f"{prompt!r} -> {text!r}")


def main() -> None:
    options = {"model": sys.argv[1]} if len(sys.argv) > 1 else {}
    engine = AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**options))
    try:
        asyncio.run(serve(engine))
    finally:
        engine.shutdown()


if __name__ == "__main__":
    main()
