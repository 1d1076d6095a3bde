"""Answers the requests of a batch file, a limited number at a time, with one record for each.

Knows neither engines nor HTTP: a `Target` answers. Temporary failures are retried. Lasting ones,
such as a refused key, end the run, and lines without an answer are left for the next run; but where
the line itself may be at fault, its last answer is recorded.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quire.batch_files.lines import BadLine, BatchRequest, Line
from quire.batch_files.output import KEY_REFUSED, LINE_ERROR, is_failure
from quire.batch_files.targets import REQUEST_ID, Answer, Target
from quire.clients.address import CertificateError, ServerError, refusal

logger = logging.getLogger(__name__)

Record = dict[str, Any]

_MAX_TRIES = 8  # in a row, while the server is away or full
_MAX_OWN_TRIES = 4  # of a line that may itself be at fault
_HELD_FOR_EACH = 4  # records that `_InOrder` may hold back, for each request in flight
_FIRST_DELAY_S, _MAX_DELAY_S = 0.5, 30.0
_FULL = frozenset({429, 503})  # statuses of a server that is full, loading or ending
_AWAY = frozenset({502, 504})  # of a gateway: the server is away, or the line crashes it
_OWN = frozenset({408, 500})  # of a server that accepted the line, then failed or was killed
_NOT_NOW = _FULL | _AWAY | _OWN


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a run has done."""

    num_ok: int = 0
    num_failed: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    seconds: float = 0.0

    def count(self, record: Record) -> None:
        if is_failure(record):
            self.num_failed += 1
            return
        self.num_ok += 1
        body = record["response"]["body"]
        usage = (body.get("usage") if isinstance(body, dict) else None) or {}
        self.num_prompt_tokens += _count(usage, "prompt_tokens", "input_tokens")
        self.num_output_tokens += _count(usage, "completion_tokens", "output_tokens")


class Runner:
    """One run over the lines that have no answer yet."""

    def __init__(
        self,
        target: Target,
        write: Callable[[Record], None],
        *,
        max_inflight: int,
        ordered: bool = False,
        on_record: Callable[[Record], None] = lambda record: None,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        """``write`` gets the records, in the lines' order if ``ordered``; ``on_record`` as they
        come."""
        self._target = target
        most_held = _HELD_FOR_EACH * max_inflight
        self._output = _InOrder(write, most_held) if ordered else _AsTheyCome(write)
        self._max_inflight = max_inflight
        self._on_record = on_record
        self._sleep = sleep
        self._model: str | None = None
        self._num_answered = 0
        self._told: set[int | None] = set()  # statuses of which the user knows

    async def run(self, lines: Iterable[Line], model: str | None = None) -> Summary:
        """``model`` is for bodies that name none; None: the target's own."""
        summary = Summary()
        started = time.perf_counter()
        self._model = model or await self._until_heard(self._target.default_model)
        numbered = enumerate(lines)  # one iterator for all workers

        async def work() -> None:
            for index, line in numbered:
                await self._output.has_room(index)
                record = await self._record(line)
                self._output.write(index, record)
                summary.count(record)
                self._on_record(record)

        workers = [asyncio.create_task(work()) for _ in range(self._max_inflight)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        summary.seconds = time.perf_counter() - started
        return summary

    async def _record(self, line: Line) -> Record:
        if isinstance(line, BadLine):
            return error_record(line)
        body = line.body if "model" in line.body else {**line.body, "model": self._model}
        num_others: int | None = None  # lines answered before this one was first refused

        async def ask() -> Answer:
            nonlocal num_others
            answer = await self._target.ask(line.path, body)
            if answer.status in _NOT_NOW:
                num_others = self._num_answered if num_others is None else num_others
                raise _NotNow(answer)
            if answer.status in KEY_REFUSED:
                raise refusal(answer.status, answer.body)
            self._num_answered += 1
            return answer

        try:
            return answer_record(line, await self._until_heard(ask))
        except _NotNow as error:
            is_there = self._num_answered != num_others  # other lines have been answered meanwhile
            if error.status in _OWN or (error.status in _AWAY and is_there):
                return answer_record(line, error.answer)
            raise
        except RecursionError:  # nested too deeply to be written, though it could be read
            message = f"line {line.number} nests lists or objects too deeply"
            return error_record(
                BadLine(number=line.number, custom_id=line.custom_id, message=message)
            )

    async def _until_heard(self, ask: Callable[[], Any]) -> Any:
        """The result of ``ask``, retried while the server is away, full or failing."""
        num_own = num_in_a_row = 0
        for num_tries in itertools.count(1):
            try:
                return await ask()
            except ServerError as error:
                if error.status in _OWN:  # the server was there: count anew
                    num_own, num_in_a_row = num_own + 1, 0
                else:
                    num_in_a_row += 1
                is_last = num_own == _MAX_OWN_TRIES or num_in_a_row == _MAX_TRIES
                if is_last or not _may_pass(error):
                    raise
                self._tell(error)
                delay = min(_FIRST_DELAY_S * 2 ** (num_tries - 1), _MAX_DELAY_S)
                wanted = error.retry_after if isinstance(error, _NotNow) else 0.0
                await self._sleep(min(max(delay, wanted), _MAX_DELAY_S))
        raise AssertionError("unreachable")

    def _tell(self, error: ServerError) -> None:
        """Say why there is no answer yet, once for each status."""
        if error.status not in self._told:
            self._told.add(error.status)
            most = _MAX_OWN_TRIES if error.status in _OWN else _MAX_TRIES
            logger.warning("%s; tried again, up to %d times in a row", error, most)


def _may_pass(error: ServerError) -> bool:
    return error.status in (None, *_NOT_NOW) and not isinstance(error, CertificateError)


class _NotNow(ServerError):
    """An answer that asks for a retry, or may be better after one."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(refusal(answer.status, answer.body)), answer.status)
        wanted = answer.headers.get("retry-after", "0")
        self.retry_after = float(wanted) if wanted.isdigit() else 0.0


class _AsTheyCome:
    """Writes records as they come."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write

    async def has_room(self, index: int) -> None:
        """Wait until the line with this index may be sent."""

    def write(self, index: int, record: Record) -> None:
        self._write(record)


class _InOrder:
    """Holds a record back until those of all earlier lines are written. Lines too far ahead wait:
    what is held takes memory, and is lost by a kill."""

    def __init__(self, write: Callable[[Record], None], most_held: int) -> None:
        self._write = write
        self._most_held = most_held
        self._held: dict[int, Record] = {}
        self._next = 0
        self._has_written = asyncio.Event()

    async def has_room(self, index: int) -> None:
        while index >= self._next + self._most_held:
            self._has_written.clear()
            await self._has_written.wait()

    def write(self, index: int, record: Record) -> None:
        self._held[index] = record
        while self._next in self._held:
            self._write(self._held.pop(self._next))
            self._next += 1
        self._has_written.set()


def answer_record(line: BatchRequest, answer: Answer) -> Record:
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):  # such as the page of a proxy
        body = answer.body.decode(errors="replace")
    request_id = answer.headers.get(REQUEST_ID) or uuid.uuid4().hex
    response = {"status_code": answer.status, "request_id": request_id, "body": body}
    return {**_head(line.custom_id), "response": response, "error": None}


def error_record(line: BadLine) -> Record:
    error = {"code": LINE_ERROR, "message": line.message, "line": line.number}
    return {**_head(line.custom_id), "response": None, "error": error}


def _head(custom_id: str | None) -> Record:
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": custom_id}


def _count(usage: Mapping[str, Any], *names: str) -> int:
    return next((usage[name] for name in names if isinstance(usage.get(name), int)), 0)
