"""Programs in the shape of known ones, which were written for vLLM, run unchanged."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import openai
import pytest

from quire import LLM, SamplingParams
from tests.as_vllm.repositories import chatglm_files, qwen_files, repository
from tests.fakes.hub import FakeHub, fake_hub

PROGRAMS = Path(__file__).parent / "programs"
QWEN, QWEN_CHAT, CHATGLM = "qwen/Qwen-7B", "qwen/Qwen-7B-Chat", "ZhipuAI/chatglm3-6b-32k"


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    for name, data in qwen_files(folder).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def hub(qwen_folder: Path) -> Iterator[FakeHub]:
    qwen = {file.name: file.read_bytes() for file in qwen_folder.iterdir()}
    with fake_hub() as hub:
        hub.repositories[QWEN] = repository(qwen, "v1.1.8")
        hub.repositories[QWEN_CHAT] = repository(qwen, "v1.1.8")
        hub.repositories[CHATGLM] = repository(chatglm_files(), "v1.0.1")
        yield hub


@pytest.fixture
def environment(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """Without a setting of the hub to use: the programs make it."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    mine = {name: text for name, text in os.environ.items() if name.lower() not in proxies}
    return {
        **mine,
        "NO_PROXY": "127.0.0.1",
        "MODELSCOPE_ENDPOINT": hub.url,
        "MODELSCOPE_DOMAIN": hub.url.removeprefix("http://"),
        "MODELSCOPE_CACHE": str(tmp_path / "modelscope"),
        "MODELSCOPE_HOME": str(tmp_path / "modelscope_home"),
        "HF_HOME": str(tmp_path / "huggingface"),
        "HF_HUB_OFFLINE": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "VLLM_CPU_KVCACHE_SPACE": "16MiB",
        "PYTHONUNBUFFERED": "1",
    }


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "quire.as_vllm", str(PROGRAMS / f"{name}.py"), *arguments]


def run(words: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)


def generated(output: str) -> list[tuple[str, str]]:
    """The lines "Prompt: ..., Generated text: ..." of a program."""
    lines = re.findall(r"^Prompt: (.+), Generated text: (.+)$", output, re.MULTILINE)
    return [(ast.literal_eval(prompt), ast.literal_eval(text)) for prompt, text in lines]


def test_qwen_of_modelscope_at_a_revision(
    hub: FakeHub, environment: dict[str, str], qwen_folder: Path
) -> None:
    done = run(command("qwen_offline"), environment)
    assert done.returncode == 0, done.stderr
    found = generated(done.stdout)
    with LLM(str(qwen_folder), device="cpu", kv_cache_memory_bytes="16MiB") as llm:
        expected = llm.generate(
            [prompt for prompt, _ in found],
            SamplingParams(temperature=0.8, top_p=0.95),
            use_tqdm=False,
        )
    assert [prompt for prompt, _ in found] == [
        *("Hello, my name is", "today is a sunny day,", "The capital of France is"),
    ]
    assert [text for _, text in found] == [output.outputs[0].text for output in expected]
    assert "qwen.tiktoken" in hub.downloads


def test_chatglm_with_two_turns_by_token_ids(hub: FakeHub, environment: dict[str, str]) -> None:
    done = run(command("chatglm_two_turns"), environment)
    assert done.returncode == 0, done.stderr
    found = generated(done.stdout)
    assert [prompt for prompt, _ in found] == [
        *("Hello, my name is Alia", "Today is a sunny day,"),
        *("What is my name again?", "What is the weather I just said today?"),
    ]
    assert not any("<|user|>" in text or "<|observation|>" in text for _, text in found)
    assert "Turns: [2, 2]" in done.stdout
    assert "tokenization_chatglm.py" in hub.downloads


def test_server_as_a_child_and_curl_and_the_client(environment: dict[str, str]) -> None:
    words = command(
        "server_and_curl",
        *(f"--model={QWEN_CHAT}", "--revision=v1.1.8", "--trust-remote-code", "--port", "0"),
    )
    environment["VLLM_USE_MODELSCOPE"] = "True"
    with subprocess.Popen(
        words,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdin and program.stdout and program.stderr
        try:
            models, completion, url = (program.stdout.readline() for _ in range(3))
            assert url, program.stderr.read()
            client = openai.OpenAI(base_url=f"{url.strip()}/v1", api_key="none")
            (model,) = client.models.list().data
            chat = client.chat.completions.create(
                model=model.id,
                messages=[{"role": "user", "content": "hello"}],
                max_tokens=5,
                temperature=0,
            )
        finally:
            program.stdin.close()
            program.wait(30)
    assert json.loads(models)["data"][0]["id"] == model.id == QWEN_CHAT
    answer = json.loads(completion)
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    choice = answer["choices"][0]
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert answer["usage"]["completion_tokens"] == 7
    assert chat.usage is not None and chat.usage.completion_tokens == 5
    assert program.returncode == 0


def test_streams_and_history_as_swift_does_them(environment: dict[str, str]) -> None:
    done = run(command("swift_inference"), environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["responses"]) == 3 and all(found["responses"])
    assert found["async"] == found["responses"]  # greedy, in an engine of its own
    assert found["max_model_len"] == 256
    first, second = found["history"]
    assert first == ["The capital of France", found["responses"][1]]
    assert second == ["and what else?", "".join(found["pieces"])]
    assert found["info"]["num_samples"] == 1
    assert found["info"]["num_generated_tokens"] == 12


def test_quantized_weights_are_refused_by_name(
    environment: dict[str, str], qwen_folder: Path
) -> None:
    done = run(command("gptq_offline", str(qwen_folder)), environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: quantization='gptq': quantized")
    assert "gptq_offline.py" in done.stderr and "quire/as_vllm" not in done.stderr
