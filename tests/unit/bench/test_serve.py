"""`quire bench serve` against a server that streams what it is told."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
from codecs import BOM_UTF8
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quire.assets import TINY_CHAT
from quire.cli import main
from tests.fakes.certificates import certificate_files
from tests.fakes.sse_server import Script, Seen, events, fake_server, json_script

MODELS = {"data": [{"id": "org/model"}]}


class FakeModel:
    """Streams ``max_tokens`` events; every fourth streamed request fails, if so made."""

    def __init__(self, fails: bool = False, not_ready: int = 0) -> None:
        self._fails = fails
        self._not_ready = not_ready
        self.bodies: list[dict[str, Any]] = []  # of streams
        self.headers: list[dict[str, str]] = []

    def __call__(self, seen: Seen) -> Script:
        if seen.path == "/v1/models":
            return json_script(MODELS)
        if not seen.body["stream"]:
            self._not_ready -= 1
            is_ready = self._not_ready < 0
            return json_script({}) if is_ready else json_script({"error": "loading"}, status=503)
        self.bodies.append(seen.body)
        self.headers.append(seen.headers)
        if self._fails and len(self.bodies) % 4 == 0:
            return json_script({"error": {"message": "too busy"}}, status=500)
        count = seen.body.get("max_tokens") or seen.body["max_completion_tokens"]
        prompt = seen.body.get("prompt", "")
        texts = [{"choices": [{"text": "x", "finish_reason": None}]} for _ in range(count)]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": count}
        return Script(pieces=events(*texts, {"choices": [], "usage": usage}, "[DONE]"))


def run(model: FakeModel, *words: str) -> int:
    with fake_server(model) as server:
        return main(["bench", "serve", "--base-url", server.url, "--disable-tqdm", *words])


RANDOM = ["--num-prompts", "8", "--random-input-len", "5", "--random-output-len", "3"]


def test_a_measurement_and_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = FakeModel()
    words = ["--save-result", "--result-dir", str(tmp_path), "--metadata", "gpu=none"]
    words += ["--num-warmups", "2", "--max-concurrency", "2", "--goodput", "ttft:60000"]
    assert run(model, *RANDOM, *words, "--ignore-eos", "--top-k", "5") == 0
    shown = capsys.readouterr().out
    assert "Successful requests:                             8" in shown
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("openai-infqps-concurrency2-model-")
    result = json.loads(file.read_text())
    assert result["model_id"] == "org/model" and result["gpu"] == "none"
    assert (result["completed"], result["failed"]) == (8, 0)
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (40, 24)
    assert result["request_rate"] == "inf" and result["max_concurrent_requests"] <= 2
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])
    assert {"mean_ttft_ms", "p99_tpot_ms", "median_itl_ms", "std_e2el_ms"} <= result.keys()
    assert "ttfts" not in result
    assert len(model.bodies) == 10
    body = model.bodies[-1]
    assert len(body.pop("prompt")) == 5
    assert body == {
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": "org/model",
        "temperature": 0.0,
        "top_k": 5,
        "ignore_eos": True,
    }


def test_details_keys_and_headers(tmp_path: Path) -> None:
    model = FakeModel()
    words = ["--save-detailed", "--result-dir", str(tmp_path), "--result-filename", "r.json"]
    words += ["--api-key", "k", "--header", "X-Team=a", "--request-id-prefix", "bench-"]
    words += ["--extra-body", '{"min_tokens": 2}', "--request-rate", "1000", "--logprobs", "1"]
    assert run(model, *RANDOM, *words) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["output_lens"] == [3] * 8 and len(result["itls"][0]) == 2
    assert result["generated_texts"] == ["xxx"] * 8
    assert model.bodies[0]["min_tokens"] == 2 and model.bodies[0]["logprobs"] == 1
    assert {one["x-request-id"] for one in model.headers} == {f"bench-{n}" for n in range(8)}
    assert model.headers[0]["authorization"] == "Bearer k" and model.headers[0]["x-team"] == "a"


def test_requests_that_fail_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeModel(fails=True), *RANDOM) == 0
    shown = capsys.readouterr().out
    assert "Failed requests:                                 2" in shown
    assert "2 requests failed, the first with: the server answered 500: too busy" in shown


def test_the_server_may_be_named_as_other_commands_name_it() -> None:
    model = FakeModel()
    with fake_server(model) as server:
        words = ["--url", f"{server.url}/v1", "--disable-tqdm", *RANDOM]
        assert main(["bench", "serve", *words]) == 0
    assert len(model.bodies) == 8


def test_what_the_dataset_ignores_is_refused_before_a_server_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--dataset-name", "standard", "--num-prompts", "4", "--url", "http://localhost:1"]
    assert main(["bench", "serve", *words]) == 1
    assert "--dataset-name standard takes no --num-prompts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--result-filename", "r.json"], "--result-filename"),
        (["--result-dir", "there"], "--result-dir"),
        (["--result-dir", "there", "--metadata", "a=b"], "--result-dir"),
        (["--result-dir", "a", "--result-filename", "b"], "--result-dir, --result-filename"),
    ],
)
def test_a_file_that_nobody_asked_for_is_no_place_for_a_result(
    capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    nowhere = ["--url", "http://localhost:1", "--ready-check-timeout-sec", "0"]
    assert main(["bench", "serve", *nowhere, *words]) == 1
    told = f"{named} would only concern the result file, and none is written; add --save-result"
    error = capsys.readouterr().err
    assert f"error: {told}, or leave out {named}\n" in error and error.count("\n") == 1


def test_what_a_file_would_hold_may_be_said_without_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)  # its handler would hide the records
    assert run(FakeModel(), *RANDOM, "--label", "x", "--metadata", "a=b") == 0
    assert "no result file is written, so it has no effect: --label, --metadata" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--profile", "profile=True: there is no profiler"),
        ("--lora-modules a b", "lora_modules=['a', 'b']: all requests name one model; give"),
        ("--plot-timeline", "plot_timeline=True: use --plot FILE"),
        ("--random-batch-size 4", "random_batch_size=4: only text generation is measured"),
        ("--hf-output-len 8", "data sets on the hub are not supported"),
        ("--probe-request-rate 2", "run another `quire bench serve` beside this one"),
        ("--self-timed", "use --request-rate and --burstiness"),
        ("--no-stream", "stream=False: answers are streamed"),
        ("--use-beam-search", "`quire bench latency --use-beam-search` measures them"),
    ],
)
def test_what_would_measure_something_else_is_refused_before_a_server_is_asked(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    nowhere = ["--url", "http://localhost:1", "--ready-check-timeout-sec", "0"]
    assert main(["bench", "serve", *nowhere, *words.split()]) == 1
    assert message in capsys.readouterr().err


def test_what_is_so_anyway_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)
    assert run(FakeModel(), *RANDOM, "--skip-tokenizer-init", "--no-self-timed") == 0
    assert "a tokenizer is loaded only to make or count text" in caplog.text


@pytest.mark.parametrize("flag", ["--save-result", "--save-detailed", "--append-result"])
def test_every_flag_that_writes_a_file_lets_it_be_named(tmp_path: Path, flag: str) -> None:
    words = ["--result-dir", str(tmp_path), "--result-filename", "r.json", "--label", "mine"]
    assert run(FakeModel(), *RANDOM, flag, *words) == 0
    assert json.loads((tmp_path / "r.json").read_text())["label"] == "mine"


def test_a_server_that_still_loads_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.bench.serving.readiness._CHECK_INTERVAL_S", 0.0)
    model = FakeModel(not_ready=3)
    assert run(model, *RANDOM) == 0
    assert len(model.bodies) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--request-rate", "0"], "the request rate 0.0 and the burstiness 1.0 must be above 0"),
        (["--goodput", "itl:5"], "--goodput itl: choose among ttft, tpot, e2el"),
        (["--goodput", "ttft=5"], "write KEY:VALUE"),
        (["--goodput", "ttft:abc"], "--goodput ttft:abc must be a time in milliseconds"),
        (["--goodput", "ttft:-1"], "--goodput ttft:-1 must be a time in milliseconds"),
        (["--header", "x"], "write KEY=VALUE"),
        (["--header", "x=a", "--header", "x=b"], "--header x is given twice; give it once"),
        (["--save-result", "--metadata", "x"], "--metadata x: write KEY=VALUE"),
        (["--base-url", "nowhere"], "'nowhere' is not the URL of a server"),
        (["--workload", "nano"], "--dataset-name random takes no --workload (that is for standard"),
        (["--ramp-up-end-rps", "5"], "choose it with --ramp-up-strategy linear or exponential"),
        (["--tokenizer", "/nope"], "--tokenizer /nope: there is no such folder"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(FakeModel(), *words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--percentile-metrics", "speed"], ["--metric-percentiles", "101"]]
)
def test_unknown_metrics_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        run(FakeModel(), *words)


@pytest.mark.parametrize("seconds", ["nan", "-5", "inf"])
def test_a_time_to_wait_is_a_number_of_seconds(
    capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit):
        run(FakeModel(), "--ready-check-timeout-sec", seconds)
    assert f"{seconds} is no time to wait; give a number of seconds" in capsys.readouterr().err


@pytest.mark.parametrize("named", [[], ["--model", "m"]])
def test_a_silent_server_is_not_waited_for_longer_than_allowed(
    capsys: pytest.CaptureFixture[str], named: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = ["--url", url, "--ready-check-timeout-sec", "0.05", *RANDOM, *named]
        assert main(["bench", "serve", *words]) == 1
    assert f"{url} does not answer; gave up after 0.05 s" in capsys.readouterr().err


def test_the_model_is_looked_up_as_requests_are_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the same headers, and without checking a certificate either."""

    class Guarded(FakeModel):
        def __call__(self, seen: Seen) -> Script:
            is_welcome = (seen.headers.get("x-team"), seen.headers.get("x-b")) == ("a", "c")
            return super().__call__(seen) if is_welcome else json_script({}, status=403)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate_files(tmp_path))
    monkeypatch.setattr("asyncio.start_server", partial(asyncio.start_server, ssl=context))
    model = Guarded()
    with fake_server(model) as server:
        words = ["--url", server.url.replace("http:", "https:"), "--disable-tqdm", *RANDOM]
        words += ["--insecure", "--header", "x-team=a", "--header", "x-b=c"]
        assert main(["bench", "serve", *words]) == 0
    assert len(model.bodies) == 8


def test_a_server_that_lists_no_models_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    class Unlisted(FakeModel):
        def __call__(self, seen: Seen) -> Script:
            is_list = seen.path == "/v1/models"
            return json_script({}, status=404) if is_list else super().__call__(seen)

    assert run(Unlisted(), *RANDOM) == 1
    assert "answered 404: {}; name a model with --model" in capsys.readouterr().err
    assert run(Unlisted(), *RANDOM, "--model", "m") == 0


def test_warm_ups_that_fail_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)
    assert run(FakeModel(fails=True), *RANDOM, "--num-warmups", "4") == 0
    told = "1 of 4 warm-up requests failed, the first with: the server answered 500: too busy"
    assert told in caplog.text


def test_input_that_nobody_counts_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Uncounted(FakeModel):
        def __call__(self, seen: Seen) -> Script:
            script = super().__call__(seen)
            return replace(script, pieces=[one for one in script.pieces if b"usage" not in one])

    (tmp_path / "data").write_text('{"prompt": "Hi", "output_tokens": 2}\n')
    words = ["--dataset-name", "custom", "--dataset-path", str(tmp_path / "data")]
    words += ["--custom-output-len", "2", "--num-prompts", "1"]
    told = "the input tokens of 1 requests are unknown and count as 0"
    assert run(Uncounted(), *words, "--skip-chat-template") == 0
    assert told in capsys.readouterr().out
    assert run(Uncounted(), *words, "--tokenizer", str(TINY_CHAT)) == 0
    assert told not in capsys.readouterr().out


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY_CHAT, tmp_path / "model")
    config = folder / "config.json"
    config.write_bytes(BOM_UTF8 + config.read_bytes())
    model = FakeModel()
    assert run(model, *RANDOM, "--tokenizer", str(folder)) == 0
    assert max(max(body["prompt"]) for body in model.bodies) < 4096


def test_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    assert run(FakeModel(), *RANDOM, "--plot", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--save-result --result-dir file", "the result cannot be written to file/"),
        ("--save-result --result-dir /proc/nope", "give another --result-dir"),
        ("--save-detailed --result-filename folder", "folder is a folder; give the name of a file"),
        ("--append-result --result-filename file/x.json", "cannot be written to file/x.json: "),
        ("--plot x.foo", "--plot x.foo: there are no pictures of kind .foo; give a name that ends"),
    ],
)
def test_what_could_not_be_written_is_refused_before_the_measurement(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    model = FakeModel()
    assert run(model, *RANDOM, *words.split()) == 1
    assert message in capsys.readouterr().err
    assert model.bodies == []


def test_a_result_that_cannot_be_written_after_all_is_shown_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Vanishing(FakeModel):
        def __call__(self, seen: Seen) -> Script:
            if seen.path != "/v1/models" and folder.exists():
                folder.rmdir()
            return super().__call__(seen)

    folder, picture = tmp_path / "results", tmp_path / "run.png"
    words = ["--save-result", "--result-dir", str(folder), "--plot", str(picture)]
    assert run(Vanishing(), *RANDOM, *words) == 1
    shown = capsys.readouterr()
    assert "Successful requests:                             8" in shown.out
    assert "No such file or directory" in shown.err
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["run.svg", "run.PDF"])
def test_the_name_of_a_picture_says_its_kind(tmp_path: Path, name: str) -> None:
    assert run(FakeModel(), *RANDOM, "--plot", str(tmp_path / name)) == 0
    assert (tmp_path / name).stat().st_size > 0


def test_a_seed_below_zero_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(FakeModel(), *RANDOM, "--seed", "-1")
    assert "argument --seed: -1 is too small; give at least 0" in capsys.readouterr().err


def test_a_picture_needs_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = FakeModel()
    assert run(model, *RANDOM, "--plot", str(tmp_path / "x.png")) == 1
    assert "pip install 'quire[plot]'" in capsys.readouterr().err
    assert model.bodies == []
