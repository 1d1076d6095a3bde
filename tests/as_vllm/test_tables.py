"""What programs written for vLLM name has the verdict of its table: fields, flags, endpoints, ...

Nothing is dropped without a word: what is not honoured is refused or noted by its name. The tables
are data, a line each (`tables/*.txt`, and the flags of the server); here is how each is judged.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tokenizers.processors import TemplateProcessing

from quire import EngineArgs, LLMEngine, env
from quire.as_vllm.names import MODULES
from quire.chat_template import ChatRenderer
from quire.engine.async_engine import AsyncLLM
from quire.engine.process import ProcessClient
from quire.sampling_params import SamplingParams
from quire.server.args import ServerArgs
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.completions import CompletionRequest
from quire.server.sampling_fields import chat_params, completion_params
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE
from tests.fakes.server import in_process_client, ready_state, tiny_engine
from tests.unit.cli import test_serve

_TABLES = Path(__file__).parent / "tables"
_BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "The capital", "max_tokens": 2, "temperature": 0},
    "chat/completions": {
        "messages": [{"role": "user", "content": "The capital"}],
        "max_tokens": 2,
        "temperature": 0,
    },
}
_CHANGING = ("id", "created")  # of every answer
# Shows everything that a request can give to a template.
_TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% for d in documents or [] %}{{ d.text }}"
    "{% endfor %}{{ mark }}{% if add_generation_prompt %}?{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: its cells, the last of which is the verdict."""

    cells: tuple[str, ...]
    verdict: str


def rows(name: str) -> list[Row]:
    lines = (_TABLES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    split = [tuple(map(str.strip, line.split("|"))) for line in lines if line[0] != "#"]
    return [Row(cells[:-1], cells[-1]) for cells in split]


def all_rows() -> list[Any]:
    tables = {path.stem: rows(path.stem) for path in sorted(_TABLES.glob("*.txt"))}
    tables["flags"] = [Row((words,), verdict) for words, verdict in test_serve.ROWS]
    assert tables.keys() == _JUDGES.keys()
    return [
        pytest.param(name, row, id=f"{name}: {' '.join(row.cells)}"[:70])
        for name, table in tables.items()
        for row in table
    ]


@dataclass(frozen=True, slots=True)
class Bench:
    """What judges need."""

    engine: AsyncLLM
    variables_of_a_core: dict[str, str]
    log: pytest.LogCaptureFixture
    patch: pytest.MonkeyPatch

    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.log.records]


async def judge_field(row: Row, bench: Bench) -> str:
    endpoint, text = row.cells
    fields: dict[str, Any] = json.loads(text)
    name = next(iter(fields))
    state = ready_state(bench.engine)
    state.chat = ChatRenderer(bench.engine.front.require_tokenizer(), _TEMPLATE)
    async with in_process_client(state) as client:
        answer = await client.post(f"/v1/{endpoint}", json={**_BODIES[endpoint], **fields})
        if answer.status_code == 400:
            error = answer.json()["error"]
            named = name in (error["param"], *re.findall(r"\w+", error["message"]))
            return "refused" if named else f"refused as {error}"
        assert answer.status_code == 200, answer.text
        if params_of(endpoint, fields, bench.engine) != params_of(endpoint, {}, bench.engine):
            return "params"
        plain = await client.post(f"/v1/{endpoint}", json=_BODIES[endpoint])
    if name == "request_id":
        return "answer" if fields[name] in answer.json()["id"] else "ignored"
    return "harmless" if content(answer) == content(plain) else "answer"


def params_of(endpoint: str, fields: dict[str, Any], engine: AsyncLLM) -> SamplingParams:
    body = {**_BODIES[endpoint], **fields, "stream": False, "stream_options": None}
    if endpoint == "completions":
        body["echo"] = False  # it asks for more than parameters
        return completion_params(CompletionRequest.model_validate(body), engine, ServerArgs())
    return chat_params(ChatCompletionRequest.model_validate(body), engine, ServerArgs())


def content(answer: httpx.Response) -> Any:
    if answer.text.startswith("data:"):
        return answer.text
    return {name: value for name, value in answer.json().items() if name not in _CHANGING}


def judge_flag(row: Row, bench: Bench) -> str:
    words = row.cells[0].split()
    name = words[0].lstrip("-").removeprefix("no-").replace("-", "_")
    plain = test_serve.arguments([])
    try:
        changed = test_serve.arguments(words) != plain
    except ValueError as error:
        return "refused" if "=" in str(error) else f"refused as {error}"
    if bench.lines():
        return "noted" if all("=" in line for line in bench.lines()) else str(bench.lines())
    if not changed:
        return "ignored"
    known = {*vars(plain[0]), *vars(plain[1])}
    return "alias" if row.verdict == "alias" and name not in known else "kept"


def judge_argument(row: Row, bench: Bench) -> str:
    name, value = row.cells[0], json.loads(row.cells[1])
    try:
        args = EngineArgs(**{name: value})
    except ValueError as error:
        return "refused" if str(error).startswith(f"{name}=") else f"refused as {error}"
    if bench.lines():
        return "noted" if bench.lines()[0].startswith(f"{name}=") else str(bench.lines())
    if name in vars(args):
        return "kept" if getattr(args, name) == value else "ignored"
    return "silent" if args == EngineArgs() else "alias"


async def judge_endpoint(row: Row, bench: Bench) -> str:
    (method, path), body = row.cells[0].split(), row.cells[1]
    async with in_process_client(ready_state(bench.engine)) as client:
        answer = await client.request(
            method, path, json=json.loads(body) if body else None, headers={"X-Request-Id": "mine"}
        )
    assert answer.headers["X-Request-Id"] == "mine"
    if answer.status_code == 200:
        return "served"
    message = answer.json()["error"]["message"]
    return "refused" if 400 <= answer.status_code < 500 and len(message) > 20 else message


def judge_variable(row: Row, bench: Bench) -> str:
    name, value = row.cells
    bench.patch.setenv(name, value)
    for variable in env.REGISTRY:
        if name in variable.names:
            return "read" if variable.get() != variable.default else "ignored"
    env.note_what_has_no_effect()
    if bench.lines():
        return "noted" if bench.lines()[0].startswith(f"{name}=") else str(bench.lines())
    if not name.startswith("VLLM_"):
        return "passed" if bench.variables_of_a_core[name] == value else "dropped"
    return "silent"


def judge_import(row: Row, bench: Bench) -> str:
    module, name = row.cells
    known = MODULES[module]
    return "kept" if name in known.names else "not built" if name in known.not_built else "missing"


_JUDGES: dict[str, Callable[[Row, Bench], Any]] = {
    "arguments": judge_argument,
    "endpoints": judge_endpoint,
    "environment": judge_variable,
    "fields": judge_field,
    "flags": judge_flag,
    "imports": judge_import,
}


@pytest.fixture(scope="module")
def engine() -> Iterator[AsyncLLM]:
    """Whose tokenizer adds a special token, which it otherwise has no use for."""
    engine = tiny_engine()
    tokenizer = engine.front.require_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.eos_token_id)]
    )
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def variables_of_a_core() -> dict[str, str]:
    """The environment of an engine's process whose parent has all those that are passed on."""
    with pytest.MonkeyPatch.context() as patch:
        for row in rows("environment"):
            if row.verdict == "passed":
                patch.setenv(*row.cells)
        core = LLMEngine(fake_config(), multiprocess_mode=True, build=BUILD_FAKE_CORE)
        pid = cast("ProcessClient", core._client).pid
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        core.close()
    split = (one.partition(b"=") for one in raw.split(b"\0") if one)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in split}


@pytest.fixture
def bench(
    engine: AsyncLLM,
    variables_of_a_core: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    caplog.set_level(logging.WARNING, logger="quire")
    return Bench(engine, variables_of_a_core, caplog, monkeypatch)


@pytest.mark.parametrize(("table", "row"), all_rows())
async def test_every_row_has_the_verdict_of_its_table(table: str, row: Row, bench: Bench) -> None:
    verdict = _JUDGES[table](row, bench)
    assert (verdict if isinstance(verdict, str) else await verdict) == row.verdict
