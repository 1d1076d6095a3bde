"""The server of `quire serve` on top of an instant core, which has a process of its own.

Run as a program: ``python server.py OPTIONS``, where OPTIONS is JSON with the arguments of
`EngineArgs` as ``engine``, and those of `StepTimes` as ``times``.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import closing
from typing import Any

from instant_core import BUILD_INSTANT_CORE, StepTimes

from quire import EngineArgs, log
from quire.engine.async_engine import AsyncLLM
from quire.engine.process import ProcessClient
from quire.engine.start import StartWatch
from quire.heap import keep_all_that_exists
from quire.server.args import ServerArgs
from quire.server.listening import address_of, listening_socket
from quire.server.serve import Server


def main(engine: dict[str, Any], times: dict[str, float]) -> None:
    """Serve at a free port until SIGTERM."""

    def open_engine(watch: StartWatch) -> AsyncLLM:
        config = EngineArgs(**engine).create_engine_config()
        opened = AsyncLLM(
            config, open_client=lambda config: ProcessClient(config, BUILD_INSTANT_CORE, watch)
        )
        keep_all_that_exists()
        return opened

    log.setup()
    StepTimes(**times).tell()
    args = ServerArgs(port=0)
    with closing(listening_socket(args)) as listener:
        print(f"listening at {address_of(listener, args)}")
        server = Server(args, open_engine, may_restart=lambda: False)
        failure = server.serve_until_end(listener, signals=(signal.SIGTERM,))
    if failure is not None:
        raise failure


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
