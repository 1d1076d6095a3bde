"""What only an engine core in its own process can do: die, be killed, outlive a thread."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quire.engine.messages import STATS, AddRequest
from quire.engine.process import ProcessClient
from quire.errors import EngineDeadError
from quire.request import EngineRequest, RowSampling
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, EXIT, KILL

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def client() -> Iterator[ProcessClient]:
    made = ProcessClient(fake_config(), BUILD_FAKE_CORE)
    yield made
    made.close()


def send_prompt(client: ProcessClient, *prompt: int) -> None:
    request = EngineRequest(
        request_id="a", prompt_token_ids=list(prompt), sampling=RowSampling(), max_tokens=4
    )
    client.send(AddRequest(request))


def assert_ends(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    assert ready, f"process {pid} still runs"


@pytest.mark.parametrize(
    ("prompt", "cause"), [(KILL, "killed by SIGKILL"), (EXIT, "exited with status 3")]
)
def test_death_without_a_word_is_explained(client: ProcessClient, prompt: int, cause: str) -> None:
    send_prompt(client, prompt)
    with pytest.raises(EngineDeadError, match=cause):
        client.receive()
    with pytest.raises(EngineDeadError, match=cause):
        client.ask(STATS)


def test_killed_while_idle_is_noticed(client: ProcessClient) -> None:
    os.kill(client.pid, signal.SIGABRT)
    with pytest.raises(EngineDeadError, match="SIGABRT"):
        client.receive()


START = """
import os, signal, sys, time
from quire.engine.messages import STATS
from quire.engine.process import ProcessClient
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE
client = ProcessClient(fake_config(), BUILD_FAKE_CORE)
print(client.pid, client.folder, flush=True)
"""


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_core_ends_with_a_killed_front_end() -> None:
    ended = run_script(START + "os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.returncode == -signal.SIGKILL
    pid, folder = ended.stdout.split()
    assert_ends(int(pid))
    assert not Path(folder).exists()


def test_core_ends_with_a_killed_front_end_of_which_a_fork_lives() -> None:
    script = """
fork = os.fork()
if fork == 0:
    os.close(1)
    time.sleep(120)
    os._exit(0)
print(fork, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    pid, _, fork = run_script(START + script).stdout.split()
    try:
        assert_ends(int(pid))
        os.kill(int(fork), 0)  # it lives
    finally:
        os.kill(int(fork), signal.SIGKILL)


def test_fork_that_ends_leaves_the_engine_as_it_is() -> None:
    script = """
fork = os.fork()
if fork == 0:
    sys.exit()
os.waitpid(fork, 0)
assert client.folder.exists()
print(client.ask(STATS).num_running)
"""
    assert run_script(START + script).stdout.split()[2:] == ["0"]


def test_core_has_standard_streams_where_its_front_end_has_none(tmp_path: Path) -> None:
    (tmp_path / "own_core.py").write_text(
        "import sys\n"
        "from tests.fakes.fake_core import FakeCore\n"
        "def build(config, report):\n"
        "    sys.stderr.write('a word')\n"
        "    return FakeCore(config)\n"
    )
    script = f"""
import os, sys
os.close(2)
sys.path.append({str(tmp_path)!r})
from quire.engine.process import ProcessClient
from tests.fakes.configs import fake_config
ProcessClient(fake_config(), "own_core:build").close()
print("started")
"""
    assert run_script(script).stdout == "started\n"


def test_core_survives_the_thread_that_started_it() -> None:
    made: list[ProcessClient] = []
    thread = threading.Thread(
        target=lambda: made.append(ProcessClient(fake_config(), BUILD_FAKE_CORE))
    )
    thread.start()
    thread.join()
    assert made[0].ask(STATS).num_running == 0
    made[0].close()


def test_close_ends_the_process_and_removes_its_folder() -> None:
    client = ProcessClient(fake_config(), BUILD_FAKE_CORE)
    folder, pid = client.folder, client.pid
    assert folder.exists()
    client.close()
    assert_ends(pid)
    assert not folder.exists()


def test_process_ends_when_its_client_is_dropped() -> None:
    client = ProcessClient(fake_config(), BUILD_FAKE_CORE)
    pid = client.pid
    del client
    gc.collect()
    assert_ends(pid)


def test_python_functions_are_refused(client: ProcessClient) -> None:
    request = EngineRequest(
        request_id="a",
        prompt_token_ids=[5],
        sampling=RowSampling(logits_processors=(print,)),
        max_tokens=4,
    )
    with pytest.raises(ValueError, match="logits_processors"):
        client.send(AddRequest(request))
    assert client.ask(STATS).num_running == 0


@pytest.mark.parametrize(("level", "times"), [(logging.INFO, 1), (logging.WARNING, 0)])
def test_core_logs_what_the_front_end_would(
    level: int, times: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(level, logger="quire"):
        ProcessClient(fake_config(), BUILD_FAKE_CORE).close()
    assert capfd.readouterr().err.count("[quire.fake] engine ready") == times
