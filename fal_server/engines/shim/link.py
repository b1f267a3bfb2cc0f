"""Follows one runner through its shim. It gets events, log lines and the end, across broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from fal_grpc.backoff import Backoff
from fal_grpc.v1 import log_pb2, run_pb2, shim_pb2
from fal_server.core.faults import Fault, Unavailable
from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import End, Event, Observation
from fal_server.core.logs import LogEntry
from fal_server.core.runners import MetricsAccess
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.logs import LogAcknowledger, batched, entries_from_wire
from fal_server.engines.shim.process import ShimProcess
from fal_server.ports import LastSequence, LogSink, RunResult

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 5.0  # how long a runner's end waits until its last lines are stored
_RETRIES = Backoff(first_seconds=0.1, longest_seconds=2.0)
_ENDS = {
    shim_pb2.WorkerExited.REASON_EXITED: End.ITSELF,
    shim_pb2.WorkerExited.REASON_OUT_OF_MEMORY: End.OUT_OF_MEMORY,
    shim_pb2.WorkerExited.REASON_OUT_OF_DISK: End.OUT_OF_DISK,
}
_ACCESS = {
    shim_pb2.WorkerReady.METRICS_ACCESS_CLOSED: MetricsAccess.CLOSED,
    shim_pb2.WorkerReady.METRICS_ACCESS_GATED: MetricsAccess.GATED,
}
_NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class RunnerLink:
    """Follows one runner until nothing of it is left.

    Args:
        client: calls the runner's shim.
        process: the shim's process.
        token: the runner's token.
        names: account, runner_id, app_name and revision_id, for its log lines.
        node: the machine that it runs on.
        sink: stores its log lines.
        last_sequence: returns the last stored sequence.
        emit: receives observations.
        silent_seconds: if nothing of an ended runner is stored for this long, stop waiting for its shim.
    """

    def __init__(
        self,
        client: ShimClient,
        process: ShimProcess,
        token: str,
        names: tuple[AccountId, str, str, str],
        *,
        node: str,
        sink: LogSink,
        last_sequence: LastSequence,
        emit: Callable[[Observation], None],
        silent_seconds: float,
    ) -> None:
        self.token = token
        self.client = client
        self.process = process
        self._account, self._runner_id, self._app_name, self._revision_id = names
        self.node = node
        self._sink = sink
        self._last_sequence = last_sequence
        self._emit = emit
        self._silent_seconds = silent_seconds
        self._exited: shim_pb2.WorkerExited | None = None
        self._result: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._batches_stored = 0

    @property
    def finished(self) -> bool:
        """Whether no process of it lives and all its lines are stored."""
        return bool(self._tasks) and all(task.done() for task in self._tasks)

    def follow(self) -> None:
        """Start to follow."""
        loop = asyncio.get_running_loop()
        self.process.watch()
        self._observe(Event.LAUNCHED)
        pump = loop.create_task(self._pump_logs(), name=f"logs of {self._runner_id}")
        self._tasks = [pump, loop.create_task(self._watch(pump), name=f"watch of {self._runner_id}")]

    async def stop(self, grace_seconds: float) -> None:
        """Send SIGTERM, and SIGKILL after the grace. If the shim does not answer, kill it and all processes."""
        await self._ask(self.client.stop(max(0.0, grace_seconds)))

    async def kill(self) -> None:
        """Send SIGKILL to all processes. Do so without the shim if that does not answer."""
        await self._ask(self.client.kill())

    async def result(self) -> RunResult:
        """Wait for the function's return value or exception.

        Raises:
            Unavailable: the runner ended without a result.
        """
        return await asyncio.shield(self._result)

    async def release(self) -> None:
        """End the shim once its last lines are stored. Call this when the runner's end is stored.

        This waits for the lines, because they are deleted afterwards.

        Raises:
            Unavailable: the link was closed before all lines were stored.
        """
        if self._exited is None and not self.process.died.is_set():
            await self.kill()
        if self._tasks:
            await self._all_stored(self._tasks[0])
        if not self.process.died.is_set():
            with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):  # it may end before it has answered
                await self.client.shut_down()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self.process.died.wait()
        if self._exited is None or not self.process.died.is_set():
            await self.process.sweep()
        await self.close()

    async def _all_stored(self, pump: asyncio.Task[None]) -> None:
        """Wait until all lines are stored. Read them from disk if the shim sends none."""
        before = None
        while not pump.done():
            if before == self._batches_stored:
                await self.process.sweep()
            before = self._batches_stored
            await asyncio.wait([pump], timeout=self._silent_seconds)
        if pump.cancelled():
            raise Unavailable("not all of its log lines are stored")

    async def store_leftover(self, stored: int = 0) -> None:
        """Store the lines that a dead shim did not send.

        Args:
            stored: the last sequence that was stored, even if its line has been deleted since.
        """
        after = max(stored, await self._last_sequence(self._runner_id))
        async for entries in self.process.leftover(after):
            await self._store(self._lines(entries))

    async def close(self) -> None:
        """Stop following; a living runner goes on. An ended one's shim ends, and its lines stay on disk."""
        if self._exited is not None and not self.process.died.is_set():
            with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
                await self.client.shut_down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._result.done():
            self._result.set_exception(Unavailable(f"the controller let go of runner {self._runner_id}"))
        self._result.exception()  # retrieved, so that asyncio does not warn
        self.process.close()
        await self.client.close()

    async def _ask(self, call: Awaitable[None]) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            if error.code() not in _NO_ANSWER:
                log.error("runner %s: its shim refuses: %s", self._runner_id, error.details())
                return
            if self._exited is None and not self.process.died.is_set():
                log.warning("runner %s: its shim does not answer (%s): ended", self._runner_id, error.details())
            await self.process.sweep()

    def _observe(
        self,
        event: Event,
        *,
        ready: shim_pb2.WorkerReady | None = None,
        access: shim_pb2.WorkerReady.MetricsAccess.ValueType = shim_pb2.WorkerReady.METRICS_ACCESS_UNSPECIFIED,
        reason: str = "",
    ) -> None:
        self._emit(
            Observation(
                runner_id=self._runner_id,
                event=event,
                reason=reason,
                node=self.node,
                handle=self.process.handle,
                host=self.client.host(on_network=ready.on_network) if ready else "",
                port=(ready.port or None) if ready else None,
                metrics_port=(ready.metrics_port or None) if ready else None,
                gated=ready.gated if ready else False,
                metrics_access=_ACCESS.get(access, MetricsAccess.OPEN),
                exit_code=_exit_code(self._exited) if event is Event.GONE else None,
                end=_end(self._exited) if event is Event.GONE else End.ORDERED,
            )
        )

    async def _watch(self, pump: asyncio.Task[None]) -> None:
        """Follow the events to the last one, or the shim's end."""
        position = failures = 0

        async def follow() -> None:
            nonlocal position, failures
            async for response in self.client.watch(position):
                position, failures = response.event.sequence, 0
                self._take(response.event)

        while self._exited is None and self.process.alive():
            try:
                await self._while_it_may_answer(follow())
            except grpc.aio.AioRpcError as error:
                log.debug("runner %s: watching broke off: %s", self._runner_id, error.details())
            except Exception:
                log.exception("runner %s: an event could not be handled", self._runner_id)
            if self._exited is None:
                failures += 1
                await self._pause(failures)
        await self._finish(pump)

    async def _while_it_may_answer(self, work: Coroutine[Any, Any, None]) -> bool:
        """Work with its shim, but not for long once that is dead. Return whether the work was done.

        The connection to a machine that has lost its power, or was cut off, does not break.
        """
        working = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(self.process.died.wait())
        try:
            await asyncio.wait([working, dying], return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and not self.process.ending:
                await asyncio.wait([working], timeout=self._silent_seconds)
            if not working.done():
                return False
            await working
            return True
        finally:
            for task in (working, dying):
                task.cancel()
            await asyncio.gather(working, dying, return_exceptions=True)

    async def _pause(self, failures: int) -> None:
        """Wait before another attempt, or until the shim dies."""
        seconds = _RETRIES.pause(failures)
        if self.process.died.is_set():
            await asyncio.sleep(seconds)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.process.died.wait()

    def _take(self, event: shim_pb2.ShimEvent) -> None:
        match event.WhichOneof("event"):
            case "ready":
                self._observe(Event.READY, ready=event.ready, access=event.ready.metrics_access)
            case "metrics":
                self._observe(Event.METRICS, access=event.metrics.metrics_access)
            case "stopping":
                self._observe(Event.STOPPING)
            case "result":
                self._result.set_result(_run_result(event.result.return_value))
            case "exited":
                self._exited = event.exited
            case _:
                return

    async def _finish(self, pump: asyncio.Task[None]) -> None:
        """Report the end once nothing lives and the last lines are stored."""
        if self._exited is None:
            reason = self.process.ending or "its shim ended before it did; all of its processes were killed"
            log.warning("runner %s: %s", self._runner_id, reason)
            await self._sweep()
        else:
            reason = self._exited.message
        await asyncio.wait([pump], timeout=_DRAIN_SECONDS)
        if not self._result.done():
            self._result.set_exception(Unavailable(f"runner {self._runner_id} ended without a result: {reason}"))
        self._observe(Event.GONE, reason=reason)

    async def _sweep(self) -> None:
        """Kill what the shim left. Try again while the machine lacks descriptors to list processes."""
        failures = 0
        while True:
            try:
                await self.process.sweep()
            except Exception as error:  # noqa: BLE001 - a runner whose end is never told would end for ever
                failures += 1
                log.warning("runner %s: what it left cannot be ended yet: %s", self._runner_id, error)
                await self._pause(failures)
            else:
                return

    async def _pump_logs(self) -> None:
        """Store the shim's lines up to the last one, and acknowledge them."""
        acks = LogAcknowledger(self.client.ack_logs)
        try:
            await self._carry_logs(acks)
        finally:
            acks.close()

    async def _carry_logs(self, acks: LogAcknowledger) -> None:
        after: int | None = None
        complete = warned = False
        failures = 0

        async def pump() -> None:
            nonlocal after, failures
            async with aclosing(batched(self.client.logs(after or 0), self._lines)) as batches:
                async for lines in batches:
                    if self.process.ending:
                        return  # its end is stored, and another one may run in its place
                    await self._store(lines)
                    after = lines[-1].sequence
                    acks.stored(after)
                    failures = 0
            await acks.last()

        while not complete:
            try:
                if after is None:
                    after = await self._last_sequence(self._runner_id)
                if self.process.alive():
                    complete = await self._while_it_may_answer(pump()) or bool(self.process.ending)
                else:
                    await self.process.sweep()  # so that it writes no further lines
                    await self.store_leftover(after)
                    complete = True
            except grpc.aio.AioRpcError as error:
                log.debug("runner %s: reading its log broke off: %s", self._runner_id, error.details())
            except Fault as fault:
                if not warned:  # once, because the log may be on the same full disk
                    log.warning("runner %s: its log lines cannot be stored yet: %s", self._runner_id, fault.message)
                warned = True
            except Exception:
                log.exception("runner %s: its log lines could not be stored; trying again", self._runner_id)
            if not complete:
                failures += 1
                await self._pause(failures)

    async def _store(self, lines: Sequence[LogEntry]) -> None:
        await self._sink(lines)
        self._batches_stored += 1

    def _lines(self, entries: Iterable[log_pb2.LogEntry]) -> list[LogEntry]:
        return entries_from_wire(
            entries,
            account=self._account,
            runner_id=self._runner_id,
            app_name=self._app_name,
            revision_id=self._revision_id,
        )


def _end(exited: shim_pb2.WorkerExited | None) -> End:
    return End.ORDERED if exited is None else _ENDS.get(exited.reason, End.ORDERED)


def _exit_code(exited: shim_pb2.WorkerExited | None) -> int | None:
    if exited is None:
        return None
    return 128 + exited.signal if exited.HasField("signal") else exited.exit_code


def _run_result(value: run_pb2.SerializedObject) -> RunResult:
    return RunResult(
        method=value.method,
        definition=value.definition,
        raised=value.was_it_raised,
        traceback=value.stringized_traceback if value.HasField("stringized_traceback") else None,
        exception_type=value.exception_type_name if value.HasField("exception_type_name") else None,
        exception_message=value.exception_message if value.HasField("exception_message") else None,
    )
