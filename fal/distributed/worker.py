"""A model in several processes. Each process runs the worker, and the runner calls all of them.

    class Draw(DistributedWorker):
        def setup(self, weights): ...

        def __call__(self, streaming=False, **payload): ...

    runner = DistributedRunner(Draw, world_size=2)
    await runner.start(weights="...")
    await runner.invoke({"prompt": "a hill"})

Each request goes to every process; the response is that of rank 0, once all of them have finished.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import multiprocessing
import pickle
import queue
import sys
import threading
import time
import traceback
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from fal.distributed.utils import (
    Group,
    KeepAliveTimer,
    ProcessContext,
    distributed_deserialize,
    distributed_serialize,
    dumped,
    encode_text_event,
    start_processes,
)

_LOCK_SECONDS = 0.005


class DistributedWorker:
    """The work of one process. Subclass it and override `setup`, `__call__` and `teardown`, plain or async.

    Attributes:
        rank: the number of this process, from 0.
        world_size: the number of processes.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self.queue: queue.Queue[bytes | None] = queue.Queue()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name=f"fal-rank-{rank}", daemon=True)
        self.thread.start()

    @property
    def device(self) -> object:
        """This process's `torch.device`: its rank's GPU, or the CPU without one.

        Raises:
            ImportError: torch is not installed.
        """
        torch = import_module("torch")
        found: object = torch.device(f"cuda:{self.rank}" if torch.cuda.is_available() else "cpu")
        return found

    @property
    def running(self) -> bool:
        """Whether the worker accepts work."""
        return self.thread.is_alive()

    def initialize(self, **kwargs: object) -> None:
        """Select this rank's GPU, if there is one, and call `setup`."""
        with suppress(ImportError):
            torch = import_module("torch")
            if torch.cuda.is_available():
                torch.cuda.set_device(self.device)
        began = time.monotonic()
        self.run_in_worker(self.setup, **kwargs).result()
        self.rank_print(f"was set up in {time.monotonic() - began:.2f} s")

    def setup(self, **kwargs: object) -> object:
        """Prepare to work, with the arguments of `DistributedRunner.start`."""

    def teardown(self) -> object:
        """Clean up."""

    def __call__(self, streaming: bool = False, **kwargs: object) -> object:
        """Process a request.

        Args:
            streaming: whether the caller wants intermediate results; pass them to `add_streaming_result`.
            kwargs: the request.
        """
        return {}

    def add_streaming_result(self, result: object, image_format: str = "jpeg", as_text_event: bool = False) -> None:
        """Send an intermediate result, if this is rank 0.

        Args:
            result: the result, which may contain images, tensors or arrays.
            image_format: of its images.
            as_text_event: as an event of a text/event-stream, if `DistributedRunner.stream` was asked for that.
        """
        encode = encode_text_event if as_text_event else distributed_serialize
        self.queue.put_nowait(encode(result, is_final=False, image_format=image_format))

    def add_streaming_error(self, error: Exception) -> None:
        """Send an error as an intermediate result."""
        self.queue.put_nowait(distributed_serialize({"error": str(error)}))

    def rank_print(self, message: str, debug: bool = False) -> None:
        """Print a line with this rank."""
        print(f"{'[debug] ' if debug else ''}[rank {self.rank}] {message}", flush=True)  # noqa: T201 - a log line

    def submit(self, coro: Coroutine[object, object, object]) -> Future[object]:
        """Run a coroutine in the worker's event loop.

        Raises:
            RuntimeError: the worker was shut down.
        """
        if not self.running:
            coro.close()
            raise RuntimeError(f"the worker of rank {self.rank} was shut down")
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def run_in_worker(self, func: Callable[..., object], *args: object, **kwargs: object) -> Future[object]:
        """Call a function, plain or async, in the worker. A plain one runs in a thread."""

        async def call() -> object:
            if inspect.iscoroutinefunction(func):
                found: object = await func(*args, **kwargs)
                return found
            bound = functools.partial(func, *args, **kwargs)
            result = await asyncio.get_running_loop().run_in_executor(None, bound)
            return await result if inspect.isawaitable(result) else result

        return self.submit(call())

    def shutdown(self, timeout: float | None = None) -> None:
        """Call `teardown`, and stop the event loop."""
        if not self.running:
            return
        try:
            self.run_in_worker(self.teardown).result()
        except Exception:  # noqa: BLE001 - the process ends all the same
            self.rank_print(f"teardown failed:\n{traceback.format_exc()}")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout)


class _Channel(Protocol):
    """One end of a pipe."""

    def send(self, obj: object, /) -> object: ...

    def recv(self) -> object: ...

    def close(self) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The runner's request to every process."""

    request_id: bytes
    payload: bytes
    streaming: bool
    as_text_events: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """A message of a process: "ready", "part", "done", "failed" or "ended"."""

    kind: str
    rank: int
    request_id: bytes = b""
    content: bytes = b""
    error: str = ""


def _serve(worker_and_arguments: bytes, rank: int, world_size: int, connection: _Channel) -> None:
    """Process the runner's requests until it sends the last one."""
    kind, arguments = pickle.loads(worker_and_arguments)  # noqa: S301 - of this runner's own process
    worker: DistributedWorker = kind(rank, world_size)
    try:
        worker.initialize(**arguments)
    except Exception as error:
        connection.send(_Message(kind="failed", rank=rank, error=f"{type(error).__name__}: {error}"))
        raise
    connection.send(_Message(kind="ready", rank=rank))
    try:
        while isinstance(request := connection.recv(), _Request):
            _answer(worker, request, connection)
    except EOFError:
        worker.rank_print("the runner is gone")
    worker.shutdown()


def _answer(worker: DistributedWorker, request: _Request, connection: _Channel) -> None:
    def send(kind: str, content: bytes) -> None:
        shown = content if worker.rank == 0 else b""
        connection.send(_Message(kind=kind, rank=worker.rank, request_id=request.request_id, content=shown))

    payload = distributed_deserialize(request.payload)
    assert isinstance(payload, dict)
    image_format = str(payload.get("image_format", "jpeg"))
    encode = encode_text_event if request.as_text_events else distributed_serialize
    working = worker.run_in_worker(worker.__call__, **{**payload, "streaming": request.streaming})
    working.add_done_callback(lambda _: worker.queue.put_nowait(None))
    while (part := worker.queue.get()) is not None:
        if request.streaming and worker.rank == 0:
            send("part", part)
    try:
        content = encode(working.result(), is_final=True, image_format=image_format)
    except Exception as error:  # noqa: BLE001 - whoever asked gets it; the worker goes on
        worker.rank_print(f"a request failed:\n{traceback.format_exc()}")
        content = encode({"error": str(error)}, is_final=True)
    send("done", content)


@dataclass(slots=True)
class _Call:
    """A request in progress."""

    request_id: bytes
    loop: asyncio.AbstractEventLoop
    messages: asyncio.Queue[_Message]
    working: set[int]


@dataclass(slots=True)
class _Processes:
    """The processes of a runner, and their messages."""

    context: ProcessContext
    connections: Sequence[_Channel]
    started: asyncio.Queue[_Message]
    loop: asyncio.AbstractEventLoop
    readers: list[threading.Thread] = field(default_factory=list)
    call: _Call | None = None
    errors: list[Exception] = field(default_factory=list)

    def read(self, rank: int) -> None:
        """Forward the messages of a process until it ends."""
        while True:
            try:
                message = self.connections[rank].recv()
                assert isinstance(message, _Message)
            except (EOFError, OSError):
                message = _Message(kind="ended", rank=rank)
            if message.kind == "failed":
                self.errors.append(RuntimeError(f"rank {rank}: {message.error}"))
            call = self.call
            loop, target = (self.loop, self.started) if call is None else (call.loop, call.messages)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(target.put_nowait, message)
            if message.kind == "ended":
                return


class DistributedRunner:
    """Starts, calls and stops the processes; `async with` starts and stops them.

    Args:
        worker_cls: the worker's class.
        world_size: how many processes, one for each GPU.
        master_addr, master_port: the rendezvous of PyTorch's process group.
        worker_addr, worker_port: ignored: the runner and its processes communicate through pipes.
        timeout: seconds that an operation of the process group may take.
        keepalive_payload: the request to make after an idle interval.
        keepalive_interval: the interval in seconds; None makes no such requests.
        cwd: the directory of the processes.
        set_device: ignored, for older apps.
    """

    def __init__(
        self,
        worker_cls: type[DistributedWorker] = DistributedWorker,
        world_size: int = 1,
        master_addr: str = "127.0.0.1",
        master_port: int = 29500,
        worker_addr: str = "127.0.0.1",
        worker_port: int | None = None,
        timeout: int = 86400,
        keepalive_payload: Mapping[str, object] = {},
        keepalive_interval: float | None = None,
        cwd: str | Path | None = None,
        set_device: bool | None = None,
    ) -> None:
        self.worker_cls = worker_cls
        self.world_size = world_size
        self.keepalive_payload = keepalive_payload
        self.keepalive_interval = keepalive_interval
        self.keepalive_timer: KeepAliveTimer | None = None
        self._group = Group(
            world_size=world_size,
            master_addr=master_addr,
            master_port=master_port,
            timeout=timeout,
            cwd=None if cwd is None else str(cwd),
        )
        self._processes: _Processes | None = None
        self._lock = threading.Lock()

    def is_alive(self) -> bool:
        """Return whether all processes run."""
        found = self._processes
        return found is not None and all(process.is_alive() for process in found.context.processes)

    def ensure_alive(self) -> None:
        """Raise an error unless all processes run.

        Raises:
            RuntimeError: a process does not run; the message says why, if known.
        """
        if not self.is_alive():
            raise RuntimeError(f"the distributed processes do not run{self._why()}")

    def gather_errors(self) -> list[Exception]:
        """Return the errors of failed processes, as far as they are known."""
        found = self._processes
        if found is None:
            return []
        ended = [(rank, process.exitcode) for rank, process in enumerate(found.context.processes)]
        codes = [RuntimeError(f"rank {rank} ended with the exit code {code}") for rank, code in ended if code]
        return [*found.errors, *codes]

    async def start(self, timeout: int = 1800, **kwargs: object) -> None:  # noqa: ASYNC109 - published
        """Start the processes, and wait until each has been set up.

        Args:
            timeout: seconds that this may take.
            kwargs: arguments of the workers' `setup`.

        Raises:
            RuntimeError: they already run, or one failed; the others are terminated.
            TimeoutError: it took too long.
        """
        if self.is_alive():
            raise RuntimeError("the distributed processes run already")
        self.terminate()
        pipes = [multiprocessing.Pipe() for _ in range(self.world_size)]
        blob = dumped((self.worker_cls, kwargs))
        given = [(blob, rank, self.world_size, theirs) for rank, (_, theirs) in enumerate(pipes)]
        context = ProcessContext(await asyncio.to_thread(start_processes, self._group, _serve, given))
        for _, theirs in pipes:
            theirs.close()
        found = self._processes = _Processes(
            context, [ours for ours, _ in pipes], asyncio.Queue(), asyncio.get_running_loop()
        )
        for rank in range(self.world_size):
            reader = threading.Thread(target=found.read, args=(rank,), name=f"fal-reads-rank-{rank}", daemon=True)
            reader.start()
            found.readers.append(reader)
        try:
            async with asyncio.timeout(timeout):
                for _ in range(self.world_size):
                    message = await found.started.get()
                    if message.kind != "ready":
                        await asyncio.to_thread(context.processes[message.rank].join, 10)
                        raise RuntimeError(f"the distributed processes could not start{self._why()}")
        except BaseException:
            await asyncio.to_thread(self.terminate)
            raise
        self.maybe_start_keepalive()

    async def stop(self, timeout: int = 10) -> None:  # noqa: ASYNC109 - published
        """Let the workers tear down, and stop the processes.

        Args:
            timeout: seconds after which remaining processes are killed.

        Raises:
            RuntimeError: they do not run.
        """
        self.ensure_alive()
        assert self._processes is not None
        self.maybe_cancel_keepalive()
        async with self._alone():
            for connection in self._processes.connections:
                with suppress(OSError):  # the process has ended
                    connection.send(None)
            end = time.monotonic() + timeout
            for process in self._processes.context.processes:
                await asyncio.to_thread(process.join, max(0.0, end - time.monotonic()))
            await asyncio.to_thread(self.terminate, timeout)

    def terminate(self, timeout: float = 10) -> None:
        """Terminate the processes; kill those that still run after `timeout` seconds."""
        self.maybe_cancel_keepalive()
        found, self._processes = self._processes, None
        if found is None:
            return
        for process in found.context.processes:
            process.terminate()
        for process in found.context.processes:
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
        for reader in found.readers:
            reader.join()
        for connection in found.connections:
            connection.close()

    async def invoke(
        self,
        payload: Mapping[str, object] = {},
        timeout: float | None = None,  # noqa: ASYNC109 - published
    ) -> object:
        """Call all processes, and return the response of rank 0. It may be an `error`.

        Args:
            payload: the keywords of the worker's `__call__`.
            timeout: seconds that the response may take; None means no limit.

        Raises:
            RuntimeError: the processes do not run, or one ended meanwhile.
            TimeoutError: it took too long; a late response is dropped.
        """
        async with self._alone(), asyncio.timeout(timeout):
            async for content in self._asked(payload, streaming=False, as_text_events=False):
                return distributed_deserialize(content)
        raise RuntimeError("the distributed processes gave no answer")

    async def stream(
        self,
        payload: Mapping[str, object] = {},
        timeout: float | None = None,  # noqa: ASYNC109 - published
        streaming_timeout: float | None = None,
        as_text_events: bool = False,
    ) -> AsyncIterator[object]:
        """Call all processes, and yield rank 0's results. The last one comes last.

        Args:
            payload: the keywords of the worker's `__call__`.
            timeout: seconds that all results may take together.
            streaming_timeout: seconds that each result may take.
            as_text_events: yield bytes that are events of a text/event-stream.

        Raises:
            RuntimeError, TimeoutError: as in `invoke`.
        """
        end = None if timeout is None else asyncio.get_running_loop().time() + timeout
        async with self._alone():
            results = self._asked(payload, streaming=True, as_text_events=as_text_events)
            while True:
                async with asyncio.timeout_at(end), asyncio.timeout(streaming_timeout):
                    try:
                        content = await anext(results)
                    except StopAsyncIteration:
                        return
                yield content if as_text_events else distributed_deserialize(content)

    async def _asked(
        self, payload: Mapping[str, object], *, streaming: bool, as_text_events: bool
    ) -> AsyncGenerator[bytes]:
        self.ensure_alive()
        found = self._processes
        assert found is not None
        self.maybe_cancel_keepalive()
        call = _Call(uuid.uuid4().bytes, asyncio.get_running_loop(), asyncio.Queue(), set(range(self.world_size)))
        found.call = call
        sent = distributed_serialize(dict(payload), is_final=True)
        request = _Request(request_id=call.request_id, payload=sent, streaming=streaming, as_text_events=as_text_events)
        for connection in found.connections:
            await asyncio.to_thread(connection.send, request)
        last: bytes | None = None
        while call.working:
            message = await call.messages.get()
            if message.kind == "ended":
                await asyncio.to_thread(found.context.processes[message.rank].join, 10)
                raise RuntimeError(f"a distributed process ended while it worked{self._why()}")
            if message.request_id != call.request_id:
                continue  # the response to an abandoned request
            if message.kind == "part":
                yield message.content
                continue
            call.working.discard(message.rank)
            last = message.content if message.rank == 0 else last
        self.maybe_start_keepalive()
        assert last is not None
        yield last

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None, None]:
        """Hold the lock, which callers in several event loops share."""
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 - an event belongs to one loop
            await asyncio.sleep(_LOCK_SECONDS)
        try:
            yield
        finally:
            self._lock.release()

    def keepalive(self, timeout: float | None = 60.0) -> None:
        """Make the keepalive request; the timer calls this in its thread.

        Raises:
            RuntimeError, TimeoutError: as in `invoke`.
        """
        asyncio.run(self.invoke(self.keepalive_payload, timeout))

    def maybe_start_keepalive(self) -> None:
        """Start the timer of the keepalive request, if there is an interval."""
        if self.keepalive_timer is None and self.keepalive_interval is not None and self._processes is not None:
            self.keepalive_timer = KeepAliveTimer(self._keep_alive, self.keepalive_interval, start=True)

    def maybe_reset_keepalive(self) -> None:
        """Restart the timer of the keepalive request."""
        if self.keepalive_timer is not None:
            self.keepalive_timer.reset()

    def maybe_cancel_keepalive(self) -> None:
        """Cancel the timer of the keepalive request until a caller's next request."""
        timer, self.keepalive_timer = self.keepalive_timer, None
        if timer is not None:
            timer.cancel()

    def _keep_alive(self) -> None:
        try:
            self.keepalive()
        except (RuntimeError, TimeoutError) as error:
            print(f"fal: the keepalive request failed: {error}", file=sys.stderr, flush=True)  # noqa: T201

    def _why(self) -> str:
        errors = self.gather_errors()
        return f": {'; '.join(map(str, errors))}" if errors else ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_alive():
            await self.stop()
        else:
            await asyncio.to_thread(self.terminate)
