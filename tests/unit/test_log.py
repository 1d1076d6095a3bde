import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest

from quire import log

SETUP = "import logging; from quire import log; log.setup(); log.setup()\n"


def stderr_of(code: str, **variables: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True
    )
    assert result.stdout == ""
    return result.stderr


def test_one_plain_line_on_stderr() -> None:
    lines = stderr_of(SETUP + "logging.getLogger('quire.x').info('hello')").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("INFO ") and lines[0].endswith("[quire.x] hello")


def test_the_level_comes_from_the_environment() -> None:
    code = (
        SETUP + "logging.getLogger('quire.x').info('no'); logging.getLogger('quire').error('yes')"
    )
    lines = stderr_of(code, VLLM_LOGGING_LEVEL="error").splitlines()
    assert [line.split("] ")[1] for line in lines] == ["yes"]


def test_a_programs_own_setup_is_kept() -> None:
    code = "import logging; logging.basicConfig(format='mine %(message)s')\n"
    code += SETUP + "logging.getLogger('quire.x').warning('hello')"
    assert stderr_of(code) == "mine hello\n"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", ["full", "no reader", "closed", "none"])
def test_what_cannot_be_written_harms_nobody(place: str, form: str) -> None:
    code = {"closed": "import sys; sys.stderr.close()", "none": "import sys; sys.stderr = None"}
    code_before = code.get(place, "") + "\n" + SETUP
    says = "logging.getLogger('quire.x').error('x' * 500)\n" * 40  # more than a buffer holds
    says += "log.last_words('quire', 'lost', KeyError('why'))\nprint('goes on')"
    unread, stderr = os.pipe()
    os.close(unread)
    if place == "full":
        os.close(stderr)
        stderr = os.open("/dev/full", os.O_WRONLY)
    result = subprocess.run(
        [sys.executable, "-c", code_before + says],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={"QUIRE_LOG_FORMAT": form},
        check=True,
    )
    os.close(stderr)
    assert result.stdout == "goes on\n"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("is_socket", [False, True])
def test_a_reader_that_stalls_stops_nobody(is_socket: bool, form: str) -> None:
    code = SETUP + "from quire.log import last_words\n"
    code += "say = logging.getLogger('quire.x').warning\n"
    code += "for i in range(9000): say('%d %s', i, 'x' * 300)\n"  # far more than a pipe holds
    code += "last_words('quire', 'lost')\n"
    code += "print('goes on', flush=True); input(); say('later'); say('last')"
    if is_socket:
        reader, stderr = (one.detach() for one in socket.socketpair())
    else:
        reader, stderr = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={"QUIRE_LOG_FORMAT": form},
    ) as process:
        os.close(stderr)
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"goes on\n"
        early = read_what_is_there(reader)
        process.stdin.write(b"\n")
        process.stdin.flush()
        with os.fdopen(reader, "rb") as log_lines:
            text = (early + log_lines.read()).decode()
    *early_lines, loss, later, last = map(message_of, text.splitlines())
    assert early_lines == [f"{i} {'x' * 300}" for i in range(len(early_lines))]
    assert loss == f"{9000 - len(early_lines)} lines of the log are lost: its reader had stalled"
    assert (later, last) == ("later", "last")


def read_what_is_there(descriptor: int) -> bytes:
    data = b""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            data += os.read(descriptor, 1 << 16)
    os.set_blocking(descriptor, True)
    return data


def message_of(line: str) -> str:
    return str(json.loads(line)["message"]) if line.startswith("{") else line.split("] ")[1]


def test_a_record_with_wrong_arguments_harms_nobody() -> None:
    code = SETUP + "logging.getLogger('quire').error('%d', 'no number')\n"
    code += "logging.getLogger('quire').error('later')"
    lines = stderr_of(code).splitlines()
    assert lines[0] == "--- Logging error ---" and lines[-1].endswith("later")


def test_json_lines_have_the_fields_of_a_record() -> None:
    code = SETUP + "log.setup_http('info')\n"
    code += "extra = {'fields': {'count': 3}}\n"
    code += "logging.getLogger('quire.x').info('it\\'s %s', 'ö', extra=extra)\n"
    code += "logging.getLogger('uvicorn.error').warning('slow')\n"
    code += "try: 1 / 0\nexcept ZeroDivisionError: logging.getLogger('quire').exception('bad')"
    text = stderr_of(code, QUIRE_LOG_FORMAT="json", PYTHONIOENCODING="utf-8")
    ours, http, failed = map(json.loads, text.splitlines())
    assert (ours["message"], ours["level"], ours["logger"]) == ("it's ö", "info", "quire.x")
    assert ours["count"] == 3
    assert (http["message"], http["logger"]) == ("slow", "uvicorn.error")
    assert failed["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_form_that_is_known_after_the_first_line_holds_from_there_on() -> None:
    code = SETUP + "import os; logging.getLogger('quire').warning('early')\n"
    code += "os.environ['QUIRE_LOG_FORMAT'] = 'json'; log.setup()\n"
    code += "logging.getLogger('quire').warning('late')"
    early, late = stderr_of(code).splitlines()
    assert early.endswith("early") and json.loads(late)["message"] == "late"


def test_the_http_servers_chatter_is_off_unless_asked_for() -> None:
    code = SETUP + "log.setup_http({!r})\n"
    code += "logging.getLogger('uvicorn.error').info('Started server process')\n"
    code += "logging.getLogger('quire.access').info('GET /')"
    only_access = stderr_of(code.format("info"), VLLM_LOGGING_LEVEL="error").splitlines()
    assert [line.split("] ")[1] for line in only_access] == ["GET /"]
    assert "Started server process" in stderr_of(code.format("debug"))


DEAD = "The engine stopped: 100 % of it.\nCause: it was killed"


def test_last_words_in_plain_text_end_with_the_root_cause(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.last_words("quire serve", DEAD, KeyError("why"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "KeyError: 'why'",
        "quire serve: error: The engine stopped: 100 % of it.",
        "Cause: it was killed",
    ]


def test_last_words_of_a_json_log_are_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_LOG_FORMAT", "json")
    log.last_words("quire serve", DEAD)
    log.last_words("quire serve", DEAD, KeyError("why"))
    plain, traced = map(json.loads, capsys.readouterr().err.splitlines())
    assert (plain["level"], plain["message"]) == ("critical", f"quire serve: error: {DEAD}")
    assert "exception" not in plain
    assert traced["message"] == plain["message"]
    assert traced["exception"] == "KeyError: 'why'"
