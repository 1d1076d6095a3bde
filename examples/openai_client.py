"""OpenAI's client with a Quire server. Usage: python examples/openai_client.py [BASE_URL [KEY]]

Needs `pip install openai`, and `quire serve` in another terminal.
"""

import sys

from openai import OpenAI


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    key = sys.argv[2] if len(sys.argv) > 2 else "none"
    with OpenAI(base_url=url, api_key=key) as client:
        model = client.models.list().data[0].id
        completion = client.completions.create(
            model=model,
            prompt="The capital of France is",
            max_tokens=8,
            temperature=0,
            n=2,
            logprobs=3,
        )
        for choice in completion.choices:
            print(choice.index, repr(choice.text))
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is 17 + 25?"}],
            max_tokens=32,
            stream=True,
            extra_body={"top_k": 20},  # fields that OpenAI does not have
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
