"""Sends cases to a controller. It reports internal errors, crashes and memory that is not freed."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from tests.fuzz.cases import Case, Door, case_of
from tests.support.controller import Controller

AT_ONCE = 12
ROUND = 240
MOST_GROWTH = 256 * 2**20
_ANSWER_SECONDS = 20.0
_CALL_SECONDS = 2.0
# A caller that sends no more counts as gone, so every answer comes at once or by then.
_PATIENCE_SECONDS = 0.5
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
# The statuses of unexpected errors. The others (501, 503, 504) say that something is not possible now.
_FAILED = frozenset({500, 502})
_FAILED_CODES = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS})
# The caller's library itself sometimes reports this when a stream is refused while it writes.
_OF_THE_CLIENT = "Internal error from Core"


@dataclass
class Report:
    """The findings.

    Attributes:
        broken: by the number of a case, or -1 for none.
        answers: how often each status was answered, by door.
    """

    cases: int = 0
    growth: int = 0
    broken: dict[int, str] = field(default_factory=dict[int, str])
    answers: Counter[str] = field(default_factory=Counter[str])


class Fuzzer:
    """Send cases to one controller.

    Args:
        seed: generates the cases.
    """

    def __init__(self, controller: Controller, seed: str) -> None:
        self._controller = controller
        self._seed = seed
        self._process = psutil.Process(controller.process.pid)
        self._log: Path = controller.state_dir / "controller.log"
        self._read = 0
        self.report = Report()

    async def run(self, seconds: float) -> Report:
        """Send cases for a time. Stop at the first that breaks a promise."""
        async with grpc.aio.insecure_channel(self._controller.host) as channel:
            end, before = time.monotonic() + seconds, 0
            while time.monotonic() < end and not self.report.broken:
                start = self.report.cases
                numbers = range(start, start + ROUND)
                turns = asyncio.Semaphore(AT_ONCE)
                await asyncio.gather(*(self._one(number, channel, turns) for number in numbers))
                self.report.cases += ROUND
                await asyncio.to_thread(self._look, numbers)
                # The first round fills the controller's pools and caches.
                before = before or self._process.memory_info().rss
                self.report.growth = self._process.memory_info().rss - before
                if self.report.growth > MOST_GROWTH:
                    self.report.broken[-1] = f"its memory has grown by {self.report.growth >> 20} MiB"
        return self.report

    async def send(self, number: int) -> Report:
        """Send one case again."""
        async with grpc.aio.insecure_channel(self._controller.host) as channel:
            await self._one(number, channel, asyncio.Semaphore(1))
            await asyncio.to_thread(self._look, range(number, number + 1))
        return self.report

    async def _one(self, number: int, channel: grpc.aio.Channel, turns: asyncio.Semaphore) -> None:
        case = case_of(self._seed, number, self._controller.host, self._controller.key)
        async with turns:
            try:
                if case.door is Door.GRPC:
                    await self._call(case, channel)
                else:
                    await self._connect(case)
            except TimeoutError:
                self.report.broken[number] = f"{case.door}: no answer and no end in {_ANSWER_SECONDS:.0f} s"

    async def _connect(self, case: Case) -> None:
        answer = b""
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._controller.port)
            try:
                writer.write(case.data)
                await writer.drain()
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        answer = await reader.read(65536)
                except TimeoutError:
                    pass  # it waits for more
                writer.write_eof()
                while part := await reader.read(65536):
                    answer = (answer + part)[:4096]
            except OSError:
                pass  # it may close a connection at any time; its answer before that counts
            finally:
                writer.close()
        found = [int(status) for status in _STATUS.findall(answer)]
        self.report.answers[f"{case.door} {found[-1] if found else 'closed'}"] += 1
        if _FAILED & set(found) or b"Traceback" in answer:
            self.report.broken[case.number] = f"{case.door}: answered {answer[:300]!r}"

    async def _call(self, case: Case, channel: grpc.aio.Channel) -> None:
        assert case.method is not None
        path = f"/{case.method.containing_service.full_name}/{case.method.name}"
        key_id, _, secret = self._controller.key.partition(":")
        metadata = (("auth-key-id", key_id), ("auth-key", secret)) if case.keyed else ()
        code, details = grpc.StatusCode.OK, ""
        call = channel.stream_stream(path)(metadata=metadata, timeout=_CALL_SECONDS)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                try:
                    await call.write(case.data)
                    await call.done_writing()
                except (grpc.RpcError, asyncio.InvalidStateError):
                    pass  # it was refused at once; reading gives the reason
                while await call.read() is not grpc.aio.EOF:
                    continue
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
        finally:
            call.cancel()
        if details == _OF_THE_CLIENT:
            code = grpc.StatusCode.CANCELLED
        self.report.answers[f"grpc {code.name}"] += 1
        if code in _FAILED_CODES or "Traceback" in details:
            self.report.broken[case.number] = f"{path}: {code.name}: {details[:300]}"

    def _look(self, numbers: range) -> None:
        """Check that the controller is alive, answers, and has written no traceback."""
        where = f"in the cases {numbers.start} to {numbers.stop - 1}"
        if self._controller.process.poll() is not None:
            self.report.broken[-1] = f"it has ended {where}: exit code {self._controller.process.returncode}"
            return
        if self._controller.call("/health", timeout=_ANSWER_SECONDS).status != 200:
            self.report.broken[-1] = f"it does not answer {where}"
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        if b"Traceback" in new:
            at = new.index(b"Traceback")
            self.report.broken[-1] = (
                f"a traceback {where}:\n{new[max(0, at - 300) : at + 3000].decode(errors='replace')}"
            )
