"""The flags of `quire bench serve`, under the names that users of other engines know."""

from __future__ import annotations

import argparse
import logging
import math
from typing import Any

from quire import log
from quire.args import add_hidden_flags, as_argument, parse_json_object
from quire.bench.other_flags import OF_SERVE
from quire.bench.report import output_file
from quire.bench.serving.arrivals import RAMPS
from quire.bench.serving.dataset_flags import add_dataset_flags
from quire.bench.serving.requests import BACKENDS
from quire.bench.serving.summary import GOODPUT_METRICS, METRICS
from quire.cli.parser import at_least
from quire.cli.sampling_flags import COMMON_FLAGS

logger = logging.getLogger(__name__)

# Flags that only concern the result file: where it is, and what is in it.
_PLACE = ("result_dir", "result_filename")
_CONTENT = ("label", "metadata")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_server(parser.add_argument_group("server"))
    _add_load(parser.add_argument_group("load"))
    add_dataset_flags(parser.add_argument_group("prompts"))
    _add_sampling(parser.add_argument_group("sampling"))
    _add_result(parser.add_argument_group("result"))
    add_hidden_flags(parser, OF_SERVE)


def pairs(texts: list[str] | None, separator: str, flag: str) -> dict[str, str]:
    """``KEY=VALUE`` words as a dictionary."""
    result: dict[str, str] = {}
    for text in texts or ():
        key, has_value, value = text.partition(separator)
        if not key or not has_value:
            raise ValueError(f"{flag} {text}: write KEY{separator}VALUE")
        if key.strip() in result:
            raise ValueError(f"{flag} {key.strip()} is given twice; give it once")
        result[key.strip()] = value.strip()
    return result


def writes_file(arguments: argparse.Namespace) -> bool:
    """Whether the result is written to a file, and not only shown."""
    return any((arguments.save_result, arguments.save_detailed, arguments.append_result))


def check_file_flags(arguments: argparse.Namespace) -> None:
    """``ValueError`` for malformed metadata, or for the place of a result file without any flag
    that writes one; a warning for its content."""
    pairs(arguments.metadata, "=", "--metadata")
    if writes_file(arguments):
        return
    if names := _given(arguments, _PLACE):
        raise ValueError(
            f"{names} would only concern the result file, and none is written; add "
            f"--save-result, or leave out {names}"
        )
    if names := _given(arguments, _CONTENT):
        log.setup()
        logger.warning("no result file is written, so it has no effect: %s", names)


def _given(arguments: argparse.Namespace, names: tuple[str, ...]) -> str:
    """The flags of ``names`` that were given, for a message."""
    given = [name for name in names if getattr(arguments, name) is not None]
    return ", ".join(f"--{name.replace('_', '-')}" for name in given)


def goodput(texts: list[str] | None) -> dict[str, float]:
    """``ttft:200 tpot:50`` as milliseconds."""
    limits = {}
    for name, value in pairs(texts, ":", "--goodput").items():
        if name not in GOODPUT_METRICS:
            raise ValueError(f"--goodput {name}: choose among {', '.join(GOODPUT_METRICS)}")
        limits[name] = _time_ms(value)
        if not limits[name] >= 0:
            raise ValueError(f"--goodput {name}:{value} must be a time in milliseconds")
    return limits


def _time_ms(text: str) -> float:
    """``text`` as a number; NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def metric_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in METRICS:
            raise ValueError(f"there is no metric {name!r}; choose among {', '.join(METRICS)}")
    return names


def percentile_list(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    for value in values:
        if not 0 <= value <= 100:
            raise ValueError(f"a percentile must be from 0 to 100, got {value:g}")
    return values


def waiting_time(text: str) -> float:
    """Seconds to wait for a server."""
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text} is no time to wait; give a number of seconds, 0 or more")
    return seconds


Group = Any  # argparse has no public name for it


def _add_server(group: Group) -> None:
    group.add_argument(
        "--backend",
        "--endpoint-type",
        default="openai",
        choices=tuple(BACKENDS),
        help="API: openai is completions (vllm and quire are the same), openai-chat is chat",
    )
    group.add_argument(
        "--base-url",
        "--url",
        metavar="URL",
        help="the server, instead of host and port",
    )
    group.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    group.add_argument("--port", type=int, default=8000, metavar="N", help="default 8000")
    group.add_argument("--endpoint", metavar="PATH", help="default: that of the backend")
    group.add_argument("--model", metavar="NAME", help="default: the server's first")
    group.add_argument("--served-model-name", metavar="NAME", help="in requests, if not --model")
    group.add_argument("--api-key", metavar="KEY", help="default: QUIRE_API_KEY, OPENAI_API_KEY")
    _add_list(group, "--header", "KEY=VALUE", "further headers")
    group.add_argument("--insecure", action="store_true", help="do not check certificates")
    group.add_argument(
        "--ready-check-timeout-sec",
        type=as_argument(waiting_time),
        default=600.0,
        metavar="S",
        help="wait this long for the server; 0: no check; default 600",
    )


def _add_load(group: Group) -> None:
    group.add_argument(
        "--num-prompts",
        type=at_least(1),
        metavar="N",
        help="requests; default 1000; a standard workload decides itself",
    )
    group.add_argument(
        "--request-rate",
        type=float,
        default=math.inf,
        metavar="X",
        help="requests a second; default inf: all at once",
    )
    group.add_argument(
        "--burstiness",
        type=float,
        default=1.0,
        metavar="X",
        help="1: Poisson arrivals; less: in bursts; more: evenly",
    )
    group.add_argument("--max-concurrency", type=at_least(1), metavar="N", help="requests at once")
    group.add_argument("--ramp-up-strategy", choices=tuple(RAMPS), help="let the rate rise")
    group.add_argument(
        "--ramp-up-start-rps",
        type=float,
        default=0.0,
        metavar="X",
        help="requests a second at the first request",
    )
    group.add_argument(
        "--ramp-up-end-rps",
        type=float,
        default=0.0,
        metavar="X",
        help="requests a second at the last request",
    )
    group.add_argument(
        "--num-warmups",
        type=at_least(0),
        default=0,
        metavar="N",
        help="requests first that do not count; default 0",
    )
    group.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="for prompts and arrivals"
    )
    group.add_argument("--request-id-prefix", default="", metavar="TEXT", help="of x-request-id")
    group.add_argument("--disable-tqdm", action="store_true", help="no progress bar")


def _add_sampling(group: Group) -> None:
    group.add_argument("--temperature", type=float, default=0.0, metavar="X", help="default 0")
    group.add_argument("--ignore-eos", action="store_true", help="every output to its full length")
    group.add_argument("--logprobs", type=at_least(0), metavar="N", help="request N for each token")
    group.add_argument(
        "--extra-body", type=as_argument(parse_json_object), metavar="JSON", help="further fields"
    )
    for name, (kind, text) in COMMON_FLAGS.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar="N" if kind is int else "X",
            help=f"{text}; default: the server's",
        )


def _add_result(group: Group) -> None:
    group.add_argument(
        "--percentile-metrics",
        type=as_argument(metric_names),
        default=("ttft", "tpot", "itl"),
        metavar="LIST",
        help=f"shown, among {','.join(METRICS)}; default ttft,tpot,itl",
    )
    group.add_argument(
        "--metric-percentiles",
        type=as_argument(percentile_list),
        default=(99.0,),
        metavar="LIST",
        help="default 99",
    )
    _add_list(
        group,
        "--goodput",
        "METRIC:MS",
        "count requests within these limits, such as ttft:200 tpot:50",
    )
    group.add_argument("--save-result", action="store_true", help="write a JSON file")
    group.add_argument("--save-detailed", action="store_true", help="and every request's times")
    group.add_argument("--append-result", action="store_true", help="append the JSON to the file")
    group.add_argument("--result-dir", metavar="DIR", help="default: the current one")
    group.add_argument("--result-filename", metavar="FILE", help="default: rate, model and time")
    group.add_argument("--label", metavar="TEXT", help="of the result, instead of the backend")
    _add_list(group, "--metadata", "KEY=VALUE", "more keys for the file")
    group.add_argument(
        "--plot",
        type=as_argument(output_file),
        metavar="FILE",
        help="picture of the latencies and of what ran when; needs matplotlib",
    )


def _add_list(group: Group, flag: str, metavar: str, text: str) -> None:
    """A flag of several words, which may be repeated."""
    group.add_argument(flag, nargs="+", action="extend", metavar=metavar, help=text)
