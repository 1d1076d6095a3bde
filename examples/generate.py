"""Continue several prompts at once. Usage: python examples/generate.py [MODEL]"""

import sys

from quire import LLM, SamplingParams

PROMPTS = ["The capital of France is", "The capital of Japan is", "2 + 3 ="]


def main() -> None:
    options = {"model": sys.argv[1]} if len(sys.argv) > 1 else {}
    with LLM(**options) as llm:
        for output in llm.generate(PROMPTS, SamplingParams(temperature=0.0, max_tokens=16)):
            print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
