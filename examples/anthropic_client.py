"""Anthropic's client with a Quire server. Usage: python examples/anthropic_client.py [URL [KEY]]

Needs `pip install anthropic`, and `quire serve` in another terminal.
"""

import sys

from anthropic import Anthropic


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    key = sys.argv[2] if len(sys.argv) > 2 else "none"
    with Anthropic(base_url=url, api_key=key) as client:
        model = client.models.list().data[0].id
        question = [{"role": "user", "content": "What is the capital of Japan?"}]
        count = client.messages.count_tokens(model=model, messages=question)
        print(count.input_tokens, "tokens in")
        with client.messages.stream(model=model, messages=question, max_tokens=32) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
        print()


if __name__ == "__main__":
    main()
