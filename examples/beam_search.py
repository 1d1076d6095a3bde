"""The three best continuations of a prompt. Usage: python examples/beam_search.py [MODEL]"""

import sys

from quire import LLM, BeamSearchParams


def main() -> None:
    options = {"model": sys.argv[1]} if len(sys.argv) > 1 else {}
    params = BeamSearchParams(beam_width=3, max_tokens=16)
    with LLM(**options) as llm:
        (output,) = llm.beam_search("The capital of France is", params)
        for beam in output.sequences:
            print(f"{beam.score:.3f} {beam.text!r}")


if __name__ == "__main__":
    main()
