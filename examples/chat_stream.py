"""A chat of two turns, printed as it is generated. Usage: python examples/chat_stream.py [MODEL]"""

import sys

from quire import LLM, SamplingParams

TURNS = ["My name is Alia.", "What is my name?"]


def main() -> None:
    options = {"model": sys.argv[1]} if len(sys.argv) > 1 else {}
    params = SamplingParams(temperature=0.0, max_tokens=64)
    messages: list[dict[str, str]] = []
    with LLM(**options) as llm:
        for turn in TURNS:
            print(f"> {turn}")
            messages.append({"role": "user", "content": turn})
            answer = ""
            for output in llm.stream_chat(messages, params):
                piece = output.outputs[0].text
                print(piece, end="", flush=True)
                answer += piece
            print()
            messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main()
