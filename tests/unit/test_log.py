import subprocess
import sys

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
