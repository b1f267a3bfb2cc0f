"""Keeps the program that speaks with Ray running, and gives it orders."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fal_server.core.faults import Unavailable

log = logging.getLogger(__name__)
_PROGRAM = Path(__file__).with_name("program.py")
# Importing Ray and connecting take seconds, on a busy machine many.
_START_SECONDS = 90.0
_ANSWER_SECONDS = 10.0
_END_SECONDS = 5.0
_MOST_BYTES = 64 * 1024 * 1024


class RayProcess:
    """The connection to a Ray cluster.

    Ray is in another process because it ends its own when its cluster is away for a minute, and because that process's
    interpreter must have the cluster's versions of Ray and Python.

    Args:
        python: the interpreter that has Ray.
        address: of the cluster, as `host:port`.

    Attributes:
        about: the versions, once they are known.
    """

    def __init__(self, python: str, address: str) -> None:
        self._python = python
        self._address = address
        self._process: asyncio.subprocess.Process | None = None
        self._errors: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=5)
        self.about: Mapping[str, object] = {}

    async def obey(self, order: Mapping[str, object]) -> Mapping[str, object]:
        """Have an order carried out; return what there is after that.

        Raises:
            Unavailable: Ray does not answer, or cannot be used; perhaps the order was carried out.
        """
        try:
            if self._process is None:
                self.about = await self._start()
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            await process.stdin.drain()
            return await self._answer(process, _ANSWER_SECONDS)
        except OSError as error:
            await self.close()
            raise Unavailable(f"{self._python} cannot be run: {error}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the process; reservations stay."""
        process, self._process = self._process, None
        errors, self._errors = self._errors, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()  # it keeps nothing
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        if errors is not None:
            await errors

    async def _start(self) -> Mapping[str, object]:
        # Nothing of the controller's own settings, which have secrets.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "AWS_"))}
        self._said.clear()
        self._process = process = await asyncio.create_subprocess_exec(
            self._python,
            str(_PROGRAM),
            self._address,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment, "PYTHONSAFEPATH": "1"},
            limit=_MOST_BYTES,
            start_new_session=True,  # Ctrl-C is for the controller, which has a last order
        )
        self._errors = asyncio.create_task(self._follow_errors(process))
        about = await self._answer(process, _START_SECONDS)
        log.info("Ray %s at %s answers", about["version"], self._address)
        return about

    async def _answer(self, process: asyncio.subprocess.Process, seconds: float) -> Mapping[str, object]:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await process.stdout.readline()
        except TimeoutError:
            raise Unavailable(f"no answer in {seconds:.0f} s") from None
        answer = json.loads(line) if line else {"trouble": "; ".join(self._said) or "its process ended"}
        if "trouble" in answer:
            raise Unavailable(str(answer["trouble"]))
        return dict(answer)

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def _follow_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            self._said.append(line.decode(errors="replace").strip())
            log.debug("ray: %s", self._said[-1])
