"""Clients that call the apps without pause. They record the outcome of each request."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from typing import Any

from tests.torture.history import History
from tests.torture.sources import AppKind
from tests.torture.world import pause

REFUSED = "refused: no controller was there"
CUT = 0
_ANSWER_SECONDS = 120.0


class Load:
    """All clients.

    Attributes:
        calm: the number of the current calm phase, or None.
        crashing: whether requests may crash their runners.
        crashes: how many requests in progress do; such a request also ends the others on its runner.
        over: whether no further request starts.
    """

    def __init__(self, history: History, port: int, seed: str) -> None:
        self.calm: int | None = None
        self.crashing = True
        self.crashes = 0
        self.over = asyncio.Event()
        self.queued: dict[str, tuple[str, str]] = {}
        self._history = history
        self._port = port
        self._chance = random.Random(f"{seed}/load")
        self._numbers = itertools.count(1)

    async def client(self, kind: AppKind) -> None:
        """Call one app until the run is over."""
        while not self.over.is_set():
            body: dict[str, object] = {"tag": f"{kind.name}-{next(self._numbers)}"}
            if kind.pause[1]:
                body["pause"] = round(self._chance.uniform(*kind.pause), 3)
            if self._chance.random() < 0.1:
                answered = await self._submit(kind, body)
            else:
                # Never for a queued request: its retries would crash runners in a calm phase.
                if self.crashing and self._chance.random() < kind.crashes:
                    body["crash"] = True
                self.crashes += "crash" in body
                answered = await self._direct(kind, body)
                self.crashes -= "crash" in body
            await pause(self._chance.uniform(0.01, 0.12) if answered else 0.4)

    async def _direct(self, kind: AppKind, body: dict[str, object]) -> bool:
        started_at, calm = time.time(), self.calm
        status, answer, error = await call(self._port, "POST", f"/local/{kind.name}/", body)
        found = answer if status == 200 else {}
        self._history.note(
            "request",
            at=started_at,
            done_at=time.time(),
            tag=body["tag"],
            app=kind.name,
            mode="direct",
            status=status,
            error=error or (None if status == 200 else str(answer)[:300]),
            runner=found.get("runner"),
            revision=found.get("revision"),
            calm=calm if calm == self.calm else None,
        )
        return status is not None

    async def _submit(self, kind: AppKind, body: dict[str, object]) -> bool:
        started_at = time.time()
        status, answer, error = await call(self._port, "POST", f"/queue/local/{kind.name}/", body)
        self._history.note(
            "request",
            at=started_at,
            done_at=time.time(),
            tag=body["tag"],
            app=kind.name,
            mode="queued",
            status=status,
            error=error,
        )
        if status == 200:
            self.queued[str(body["tag"])] = (kind.name, str(answer["request_id"]))
            self._history.note("accepted", tag=body["tag"], request_id=answer["request_id"])
        return status is not None

    async def settle(self, seconds: float) -> None:
        """Wait for the outcome of every accepted request."""
        end = asyncio.get_running_loop().time() + seconds
        waiting = dict(self.queued)
        while waiting:
            for tag, (app, request_id) in list(waiting.items()):
                status, answer, error = await call(
                    self._port, "GET", f"/queue/local/{app}/requests/{request_id}/status", None
                )
                late = asyncio.get_running_loop().time() > end
                if status == 200 or late or status == 404:
                    del waiting[tag]
                    state = answer.get("status", str(status)) if isinstance(answer, dict) else error
                    self._history.note("outcome", tag=tag, state=state)
            await pause(0.2)


async def call(port: int, method: str, path: str, body: object) -> tuple[int | None, Any, str | None]:
    """Send a request on its own connection; return (status, parsed body, error).

    The status is None without an answer, and CUT if the runner ended within one.
    """
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    writer: asyncio.StreamWriter | None = None
    answer = bytearray()
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + content)
            while data := await reader.read(65536):
                answer += data
    except TimeoutError:
        return None, {}, f"no answer within {_ANSWER_SECONDS:g} s"
    except ConnectionRefusedError:
        return None, {}, REFUSED
    except OSError as error:
        return (CUT if answer else None), {}, f"{type(error).__name__}: {error}"
    finally:
        if writer is not None:
            writer.transport.abort()
    head_lines, separator, rest = bytes(answer).partition(b"\r\n\r\n")
    if not separator:
        return None, {}, "the connection ended before an answer"
    try:
        return int(head_lines.split(b" ", 2)[1]), json.loads(rest), None
    except ValueError:
        # Every answer is a JSON object with a length; anything else is incomplete.
        return CUT, {}, f"cut off after {len(answer)} bytes"
