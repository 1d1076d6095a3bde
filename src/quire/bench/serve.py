"""Latencies and throughput of a running server, Quire's or another with OpenAI's API.

  quire bench serve --num-prompts 200 --request-rate 8 --random-input-len 512 --ignore-eos
  quire bench serve --url http://host:8000 --dataset-name sharegpt --dataset-path FILE

Flags and result keys are those that users of vLLM know. Random prompts are sent as token ids, so
their lengths are exact; a chat gets their text, which its server may tokenize differently. Tokens
are counted by the server's usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire import log
from quire.args import BUNDLED_MODEL
from quire.bench.other_flags import OF_SERVE
from quire.bench.report import output_file
from quire.bench.serving import flags
from quire.bench.serving.arrivals import Arrivals
from quire.bench.serving.dataset_flags import settle_dataset
from quire.bench.serving.datasets import Source, load_requests
from quire.bench.serving.load import Load
from quire.bench.serving.measure import Measured
from quire.bench.serving.plots import check_plot, plot
from quire.bench.serving.readiness import until_answered
from quire.bench.serving.requests import BACKENDS, LoadRequest
from quire.bench.serving.summary import DETAILS, rate_text, summarize, table
from quire.cli.sampling_flags import COMMON_FLAGS
from quire.clients.address import Address, ServerError, api_key, key_headers, refusal
from quire.clients.http import HTTPClient, tell_of_proxy
from quire.clients.remote import RemoteModel, first_of, listed_models, unlisted
from quire.compat import settle_other_flags
from quire.heap import rare_collections, unwatched_heap
from quire.model_files import read_json

logger = logging.getLogger(__name__)

add_arguments = flags.add_arguments

_OK = 200
_TIME = "%Y%m%d-%H%M%S"


def run(arguments: argparse.Namespace) -> int:
    import uvloop

    settle_other_flags(arguments, OF_SERVE)
    flags.check_file_flags(arguments)
    if arguments.plot is not None:
        check_plot(arguments.plot)
    plan = Plan.make(arguments)
    file = _result_file(plan, arguments) if flags.writes_file(arguments) else None
    measured, duration = uvloop.run(_measure(plan, arguments))
    result = summarize(
        measured,
        duration,
        percentiles=arguments.metric_percentiles,
        goodput=flags.goodput(arguments.goodput),
    )
    print(table(result, arguments.percentile_metrics, arguments.metric_percentiles))
    _print_problems(measured)
    try:
        if file is not None:
            _save(plan, arguments, result, file)
            print(f"written to {file}")
    finally:  # one of the two is better than none
        if arguments.plot is not None:
            plot(measured, arguments.plot, f"{plan.model}, {len(measured)} requests")
    return 0 if result["completed"] else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where requests go, and how."""

    address: Address
    headers: Mapping[str, str]
    checks_certificate: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Server:
        url = arguments.base_url or f"http://{arguments.host}:{arguments.port}"
        own = flags.pairs(arguments.header, "=", "--header")
        return cls(
            address=Address.parse(url),
            headers={**key_headers(api_key(arguments.api_key)), **own},
            checks_certificate=not arguments.insecure,
        )

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[HTTPClient]:
        client = HTTPClient(self.address, self.headers, verify=self.checks_certificate)
        try:
            yield client
        finally:
            await client.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured."""

    server: Server
    model: str
    tokenizer: str
    requests: Sequence[LoadRequest]
    due: Sequence[float]  # seconds from the start
    fields: Mapping[str, Any]

    @classmethod
    def make(cls, arguments: argparse.Namespace) -> Plan:
        import uvloop

        settle_dataset(arguments)
        server = Server.of(arguments)
        arrivals = Arrivals(
            rate=arguments.request_rate,
            burstiness=arguments.burstiness,
            ramp_up=arguments.ramp_up_strategy,
            start_rate=arguments.ramp_up_start_rps,
            end_rate=arguments.ramp_up_end_rps,
        )
        flags.goodput(arguments.goodput)  # so that a mistake shows before the measurement
        tell_of_proxy(server.address)
        model, root = arguments.model, None
        if model is None:
            first = uvloop.run(_first_model(server, arguments.ready_check_timeout_sec))
            model, root = first.name, first.root
        tokenizer = _given_tokenizer(arguments) or _where_to_find(root or model)
        requests = load_requests(Source(arguments, tokenizer, _vocab_size(tokenizer)))
        return cls(
            server=server,
            model=model,
            tokenizer=tokenizer,
            requests=requests,
            due=arrivals.seconds(len(requests), arguments.seed),
            fields=_fields(arguments, arguments.served_model_name or model),
        )


async def _measure(plan: Plan, arguments: argparse.Namespace) -> tuple[list[Measured], float]:
    """What became of each request, and the seconds from the first to the end of the last."""
    from tqdm import tqdm

    async with plan.server.client() as client:
        backend = BACKENDS[arguments.backend]
        load = Load(
            client,
            backend,
            endpoint=arguments.endpoint or backend.endpoint,
            fields=plan.fields,
            request_id_prefix=arguments.request_id_prefix,
        )
        await _warm_up(load, plan, arguments)
        disable = True if arguments.disable_tqdm else None  # None: where there is no terminal
        bar = tqdm(total=len(plan.requests), disable=disable, unit="request")
        # A GC pause here would look like the server's.
        with bar, unwatched_heap(), rare_collections():
            return await load.run(
                plan.requests,
                plan.due,
                max_concurrency=arguments.max_concurrency,
                on_end=lambda: bar.update(),
            )


async def _warm_up(load: Load, plan: Plan, arguments: argparse.Namespace) -> None:
    """Wait until the server answers, then send the requests that do not count."""
    first, timeout_s = plan.requests[0], arguments.ready_check_timeout_sec
    if timeout_s > 0:
        await until_answered(lambda: load.check(first), plan.server.address, timeout_s)
    if not arguments.num_warmups:
        return
    warmups = [first.probe(first.num_output_tokens)] * arguments.num_warmups
    measured, _ = await load.run(
        warmups, [0.0] * len(warmups), max_concurrency=arguments.max_concurrency
    )
    if errors := [one.error for one in measured if not one.ok]:
        log.setup()
        logger.warning(
            "%d of %d warm-up requests failed, the first with: %s",
            len(errors),
            len(measured),
            errors[0],
        )


async def _first_model(server: Server, timeout_s: float) -> RemoteModel:
    """The server's first model, once it has one."""

    async def ask() -> RemoteModel:
        reply = await client.get("/v1/models")
        try:
            if reply.status != _OK:
                raise refusal(reply.status, reply.body)
            models = listed_models(reply.body)
        except ServerError as error:
            raise unlisted(error) from None
        return first_of(models, server.address)

    async with server.client() as client:
        return await until_answered(ask, server.address, timeout_s)


def _given_tokenizer(arguments: argparse.Namespace) -> str | None:
    """The value of --tokenizer; ``ValueError`` for a missing folder, which is no hub id."""
    name: str | None = arguments.tokenizer
    if name is not None and name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise ValueError(f"--tokenizer {name}: there is no such folder; give one, or a hub id")
    return name


def _where_to_find(name: str) -> str:
    """The hub id or folder of a model; the bundled model's name on a server is neither."""
    return str(BUNDLED_MODEL) if name == BUNDLED_MODEL.name else name


def _vocab_size(name: str) -> int | None:
    """The vocab_size in a model folder's config.json; None if there is no such file or size."""
    config = read_json(Path(name) / "config.json") or {}
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def _fields(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    """The fields of every request besides the prompt."""
    given = vars(arguments)
    fields: dict[str, Any] = {"model": model, "temperature": arguments.temperature}
    fields |= {name: given[name] for name in COMMON_FLAGS if given[name] is not None}
    if arguments.ignore_eos:
        fields["ignore_eos"] = True
    if arguments.logprobs is not None:
        is_chat = arguments.backend == "openai-chat"
        chat = {"logprobs": True, "top_logprobs": arguments.logprobs}
        fields |= chat if is_chat else {"logprobs": arguments.logprobs}
    return {**fields, **(arguments.extra_body or {})}


def _print_problems(measured: Sequence[Measured]) -> None:
    errors = [one.error for one in measured if not one.ok]
    if errors:
        print(f"{len(errors)} requests failed, the first with: {errors[0]}")
    num_uncounted = sum(one.ok and not one.num_prompt_tokens for one in measured)
    if num_uncounted:
        print(
            f"the input tokens of {num_uncounted} requests are unknown and count as 0: their "
            "prompts are text, and the server reports no usage"
        )


def _result_file(plan: Plan, arguments: argparse.Namespace) -> Path:
    """Where the result will be written, in a folder that is made now; ``ValueError`` if it cannot
    be written there."""
    name = arguments.result_filename or _name(plan, arguments)
    path = Path(arguments.result_dir or ".") / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the result cannot be written to {path}: {error.strerror} ({error.filename}); give "
            "another --result-dir"
        ) from None
    return Path(output_file(str(path)))


def _save(plan: Plan, arguments: argparse.Namespace, result: Mapping[str, Any], path: Path) -> None:
    """Write the result and what was measured; ``--save-detailed`` keeps every request's figures."""
    head = {
        "date": time.strftime(_TIME),
        "endpoint_type": arguments.backend,
        "backend": arguments.backend,
        "label": arguments.label,
        "model_id": plan.model,
        "tokenizer_id": plan.tokenizer,
        "num_prompts": len(plan.requests),
        "request_rate": rate_text(arguments.request_rate),
        "burstiness": arguments.burstiness,
        "max_concurrency": arguments.max_concurrency,
    }
    if arguments.ramp_up_strategy is not None:
        names = ("ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps")
        head |= {name: vars(arguments)[name] for name in names}
    left_out = () if arguments.save_detailed else DETAILS
    body = {name: value for name, value in result.items() if name not in left_out}
    whole = {**head, **flags.pairs(arguments.metadata, "=", "--metadata"), **body}
    with path.open("a" if arguments.append_result else "w", encoding="utf-8") as file:
        file.write(json.dumps(whole) + "\n")


def _name(plan: Plan, arguments: argparse.Namespace) -> str:
    concurrency = arguments.max_concurrency
    parts = (
        arguments.label or arguments.backend,
        f"{arguments.request_rate}qps",
        *(() if concurrency is None else (f"concurrency{concurrency}",)),
        Path(plan.model).name,
        time.strftime(_TIME),
    )
    return "-".join(parts) + ".json"
