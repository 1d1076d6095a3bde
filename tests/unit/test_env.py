import logging
import re
from pathlib import Path

import pytest

import quire
from quire import env


def test_a_variable_is_read_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.USE_MODELSCOPE.get() is False
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    assert env.USE_MODELSCOPE.get() is True
    assert env.USE_MODELSCOPE.source() == "VLLM_USE_MODELSCOPE"
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "0")
    assert env.USE_MODELSCOPE.get() is False, "our own name goes first"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        (env.USE_MODELSCOPE, "maybe"),
        (env.LOGGING_LEVEL, "LOUD"),
        (env.NUM_THREADS, "0"),
        (env.CPU_KVCACHE_SPACE, "much"),
        (env.CPU_KVCACHE_SPACE, "inf"),
        (env.CPU_KVCACHE_SPACE, "-3"),
        (env.HTTP_TIMEOUT_KEEP_ALIVE, "0"),
        (env.HTTP_TIMEOUT_KEEP_ALIVE, "7.5"),
        (env.MAX_STOP_STRINGS, "0"),
        (env.MAX_STOP_STRINGS, "many"),
        (env.STEP_TIMEOUT, "-1"),
        (env.STEP_TIMEOUT, "inf"),
        (env.STEP_TIMEOUT, "soon"),
    ],
)
def test_a_wrong_value_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: env.Variable[object], text: str
) -> None:
    monkeypatch.setenv(variable.names[0], text)
    with pytest.raises(ValueError, match=f"environment variable {variable.names[0]}='{text}'"):
        variable.get()


@pytest.mark.parametrize(
    ("text", "count"), [("2", 2 * 2**30), ("512MiB", 2**29), ("0.5", 2**29), ("0", None)]
)
def test_kv_space_counts_gib(monkeypatch: pytest.MonkeyPatch, text: str, count: int | None) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", text)
    assert env.CPU_KVCACHE_SPACE.get() == count


def test_nested_openmp_threads_count_at_the_first_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert env.NUM_THREADS.get() == 4


def test_a_step_may_hang_for_ever_if_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.STEP_TIMEOUT.get() == 300
    monkeypatch.setenv("QUIRE_STEP_TIMEOUT", "0")
    assert env.STEP_TIMEOUT.get() == 0


def test_an_empty_value_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_LOGGING_LEVEL", " ")
    assert env.LOGGING_LEVEL.get() == "INFO"
    assert env.LOGGING_LEVEL.source() is None


def test_an_empty_value_may_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.VLLM_PLUGINS.get() is None
    monkeypatch.setenv("VLLM_PLUGINS", "")
    assert env.VLLM_PLUGINS.get() == [""]
    assert env.VLLM_PLUGINS.source() == "VLLM_PLUGINS"


def test_variables_of_others_that_are_read_are_in_the_table() -> None:
    package = Path(quire.__file__).parent
    in_use = re.compile(r'environ(?:\.get\(|\[)"(\w+)"')
    found = {name for file in package.rglob("*.py") for name in in_use.findall(file.read_text())}
    found.discard("VLLM_PORT")  # stands for a flag
    assert found and found <= env.OF_OTHERS.keys()


def test_variables_of_others_in_the_table_are_read() -> None:
    package = Path(quire.__file__).parent
    files = [file for file in package.rglob("*.py") if file.name != "env.py"]
    source = "".join(file.read_text() for file in files)
    assert [name for name in env.OF_OTHERS if f'"{name}"' not in source] == []


def test_variables_of_vllm_without_effect_are_noted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {
        "VLLM_HOST_IP": "10.0.0.1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # as it is anyway
        "VLLM_USE_MODELSCOPE": "1",  # is read
        "VLLM_PORT_8000_TCP": "tcp://10.0.0.2:8000",  # is Kubernetes'
        "VLLM_SOMETHING": "x",
        "VLLM_CACHE_ROOT": " ",
    }.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, logger="quire"):
        env.note_what_has_no_effect()
    assert [record.getMessage() for record in caplog.records] == [
        "VLLM_HOST_IP=10.0.0.1 has no effect: only one node computes yet",
        "VLLM_SOMETHING=x has no effect: Quire has no setting of this name",
    ]
