"""Keeps warm shims for later runners. For recently used environments it keeps shims with a warm worker.

A warm shim has loaded Python and gRPC; a warm worker has imported what its environment's last runs imported. Each is
used once, and replaced in the background. After a burst the pool grows to the size of the burst, if memory allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import psutil

from fal_runner.isolation.mounts import APP_VARIABLE
from fal_runner.isolation.sandbox import APP, PARTS, has_sandbox
from fal_runner.process.removal import discard_tree
from fal_runner.process.usage import measure_descendants
from fal_server.aio.tasks import TaskSet
from fal_server.core.bursts import Wish, largest_burst, shares

log = logging.getLogger(__name__)
Key: TypeAlias = tuple[str, ...]
# How long after the last start to fill the pool, and after how many such rests at most, since starts may never pause.
REST_SECONDS = 2.0
# How long after a runner is ready to fill it: the first requests have priority.
READY_REST_SECONDS = 0.25
_MOST_RESTS = 5
# After how long an unused environment is not worth the memory.
IDLE_SECONDS = 3600.0
# Which part of the free memory may go to shims that wait for bursts.
_MEMORY_SHARE = 0.25
_SHIM_MIB = 25.0
_LEAST_SECONDS = 1.0
"""How long a worker takes at least until it waits, as long as none was measured."""
_MOST_STARTS = 256
_READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmKey:
    """Names the runners that a warm worker suits. It also says how to start the worker, and holds no secret.

    Attributes:
        python: the environment's interpreter; its path changes with each build.
        env: the variables that all runners of the environment share.
        imports_file: lists what the account's runners of the environment import.
        sandbox: what they see of the machine, see Sandboxes.
    """

    python: Path
    env: Mapping[str, str]
    imports_file: Path
    sandbox: str = ""

    @property
    def key(self) -> Key:
        """A key that is equal for runners whose workers are interchangeable."""
        return (str(self.imports_file), self.sandbox, *(f"{name}={value}" for name, value in sorted(self.env.items())))


class WarmShim:
    """A shim that waits on a socket for its runner. It ends when the socket closes.

    Args:
        pid: its process id.
        connection: our end of the socket.
        directory: contains its worker's working directory, if it has a worker.
        warmed: called whenever the worker has imported the whole list.

    Attributes:
        worker: the pid of its worker, once that has imported the whole list.
        took_seconds: how long the first import took.
    """

    def __init__(
        self,
        pid: int,
        connection: socket.socket,
        directory: Path | None = None,
        warmed: Callable[[], object] = lambda: None,
    ) -> None:
        self.pid = pid
        self._warmed = warmed
        self.directory = directory
        self.worker: int | None = None
        self.took_seconds = 0.0
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._listens: asyncio.Future[bool] = self._loop.create_future()
        self._received = b""
        self._looks = 0
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    @property
    def alive(self) -> bool:
        """Whether it still reads from the socket."""
        return not self._listens.done()

    def send(self, message: Mapping[str, object]) -> None:
        """Send a line."""
        with contextlib.suppress(OSError):  # its end will be noticed
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def look_again(self) -> None:
        """Have its worker import what the list has gained."""
        self.worker = None
        self._looks += 1
        self.send({"again": self._looks})

    async def listens(self) -> bool:
        """Wait until it serves its runner; return False if it ends first."""
        return await asyncio.shield(self._listens)

    def release(self) -> None:
        """Leave the process to its runner."""
        self._loop.remove_reader(self._connection)
        self._connection.close()
        if self.directory is not None:
            discard_tree(self.directory)

    async def end(self) -> None:
        """Kill it and its worker, which have no runner, and reap it."""
        self.release()
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so its pid is not reused
        await asyncio.to_thread(os.waitpid, self.pid, 0)

    def _read(self) -> None:
        try:
            data = self._connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            word, *numbers = line.decode().split()
            if word == "ahead" and int(numbers[1]) == self._looks:
                self.worker = int(numbers[0])
                self.took_seconds = self.took_seconds or self._loop.time() - self._started
                self._warmed()
            elif word == _READY and not self._listens.done():
                self._listens.set_result(True)
        if not data:
            self._loop.remove_reader(self._connection)
            if not self._listens.done():
                self._listens.set_result(False)


class WarmPool:
    """Keeps shims ready. Create and use it in one event loop.

    Args:
        shims: how many to keep without a worker.
        workers: for how many environments to keep shims with a worker: one each, or as many as its last bursts took.
        start: starts a process that waits on the other end of the socket, and returns its pid.
        root: holds the workers' directories; on the file system of the runners' directories; emptied now.
        rest_seconds: how long after a start to start nothing, so that the runner has the processors.
        idle_seconds: how long to keep the worker of an unused environment, and to remember its bursts.
        free_mib: returns how much memory is free.

    Attributes:
        warmed: set whenever a worker has imported its whole list.
    """

    def __init__(
        self,
        shims: int,
        workers: int,
        start: Callable[[socket.socket], int],
        root: Path,
        rest_seconds: float = REST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        free_mib: Callable[[], float] = lambda: psutil.virtual_memory().available / 2**20,
    ) -> None:
        self._shims = shims
        self._workers = workers
        self._start = start
        self._root = root
        self._rest_seconds = rest_seconds
        self._idle_seconds = idle_seconds
        self.warmed = asyncio.Event()
        self._plain: deque[WarmShim] = deque()
        self._free_mib = free_mib
        self._warm: dict[Key, list[WarmShim]] = {}
        self._used: dict[Key, tuple[WarmKey, float]] = {}  # ordered by their last use
        self._starts: dict[Key, deque[float]] = {}
        self._took_seconds: dict[Key, float] = {}  # until the last worker was ready
        self._learned: set[Key] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._rested_at = 0.0
        self._endings = TaskSet(log)
        discard_tree(root)
        self._fill()

    def take(self, warm_key: WarmKey | None) -> WarmShim | None:
        """Take a warm shim, with a worker if this key has one. It may be dead. None if there is no shim."""
        self._use(warm_key, rest_seconds=self._rest_seconds)
        if warm_key is not None and self._workers:
            now = asyncio.get_running_loop().time()
            self._starts.setdefault(warm_key.key, deque(maxlen=_MOST_STARTS)).append(now)
            waiting = self._warm.get(warm_key.key, [])
            for warm_shim in waiting:
                if warm_shim.worker is not None and warm_shim.alive:
                    waiting.remove(warm_shim)
                    self._took_seconds[warm_key.key] = warm_shim.took_seconds
                    return warm_shim
        return self._plain.popleft() if self._plain else None

    def expect(self, warm_key: WarmKey) -> None:
        """Have a worker wait for a runner that may be asked for."""
        self._use(warm_key, rest_seconds=self._rest_seconds)

    def learn(self, warm_key: WarmKey) -> None:
        """Note that a start has finished. Its environment's list of imports may have grown."""
        self._learned.add(warm_key.key)
        self._use(warm_key, rest_seconds=min(self._rest_seconds, READY_REST_SECONDS))

    @property
    def workers(self) -> list[int]:
        """The pids of the workers that have imported their whole list."""
        known = [each.worker for key, waiting in self._warm.items() if key not in self._learned for each in waiting]
        return [pid for pid in known if pid is not None]

    async def close(self) -> None:
        """End all waiting shims."""
        self._shims = self._workers = 0
        if self._timer is not None:
            self._timer.cancel()
        for warm_shim in (*self._plain, *chain.from_iterable(self._warm.values())):
            self._end(warm_shim)
        self._plain.clear()
        self._warm.clear()
        await self._endings.wait()

    def _use(self, warm_key: WarmKey | None, *, rest_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if warm_key is not None and self._workers:
            self._used.pop(warm_key.key, None)
            self._used[warm_key.key] = (warm_key, loop.time())
        if self._shims or self._workers:
            self._due = min(self._due, loop.time() + _MOST_RESTS * self._rest_seconds)
            self._rested_at = min(self._due, loop.time() + rest_seconds)
            self._fill_at(self._rested_at)

    def _fill_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._fill)

    def _fill(self) -> None:
        """End surplus shims, and start missing ones. Have workers import what lists have gained."""
        self._timer, self._due = None, float("inf")
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        used = [key for key, (_, at) in self._used.items() if at > oldest]
        self._used = {key: self._used[key] for key in used[-self._workers :]} if self._workers else {}
        self._starts = {key: self._starts[key] for key in self._used if key in self._starts}
        self._took_seconds = {key: self._took_seconds[key] for key in self._used if key in self._took_seconds}
        wanted = self._wanted(oldest)
        for key in list(self._warm):
            self._keep(key, wanted.get(key, 0))
        try:
            while len(self._plain) < self._shims:
                self._plain.append(self._start_one())
            for key, (warm_key, _) in self._used.items():
                waiting = self._warm.setdefault(key, [])
                if key in self._learned:
                    for warm_shim in waiting:
                        warm_shim.look_again()
                # One after another, to leave the processors to existing runners.
                if len(waiting) < wanted[key] and all(each.worker is not None for each in waiting):
                    waiting.append(self._start_warm(warm_key))
        except OSError as error:  # no process or directory can be created; the next runner starts cold
            log.warning("nothing is kept ready for runners: %s", error.strerror)
        self._learned.clear()
        if self._used:
            self._fill_at(min(at for _, at in self._used.values()) + self._idle_seconds)

    def _wanted(self, oldest: float) -> dict[Key, int]:
        """Return how many workers should wait for each environment in use."""
        wishes: dict[Key, Wish] = {}
        more_mib = 0.0
        for key in self._used:
            ready = [warm_shim for warm_shim in self._warm.get(key, ()) if warm_shim.worker is not None]
            mib = _SHIM_MIB + measure_descendants(ready[0].pid).memory_bytes / 2**20 if ready else None
            more_mib += (mib or 0.0) * max(0, len(ready) - 1)
            starts = [at for at in self._starts.get(key, ()) if at > oldest]
            within = self._rest_seconds + max(_LEAST_SECONDS, self._took_seconds.get(key, 0.0))
            wishes[key] = Wish(workers=largest_burst(starts, within), mib=mib)
        return shares(wishes, _MEMORY_SHARE * (self._free_mib() + more_mib))

    def _keep(self, key: Key, count: int) -> None:
        """Keep this many waiting shims of an environment. End the others, and drop dead ones."""
        waiting = sorted(self._warm[key], key=lambda warm_shim: warm_shim.worker is None)
        kept = [warm_shim for warm_shim in waiting if warm_shim.alive][:count]
        for warm_shim in waiting:
            if warm_shim not in kept:
                self._end(warm_shim)
        self._warm[key] = kept
        if not kept:
            del self._warm[key]

    def _imported(self) -> None:
        """Continue with what is still missing."""
        self.warmed.set()
        if self._used:
            self._fill_at(max(self._rested_at, asyncio.get_running_loop().time()))

    def _start_one(self, directory: Path | None = None) -> WarmShim:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                return WarmShim(self._start(theirs), ours, directory, self._imported)
            except OSError:
                ours.close()
                raise

    def _start_warm(self, warm_key: WarmKey) -> WarmShim:
        directory = self._root / secrets.token_hex(8)
        app = directory / APP
        parts = [directory / name for name in (PARTS if has_sandbox(warm_key.sandbox) else [APP])]
        for each in (self._root, directory, *parts):
            each.mkdir(mode=0o700, exist_ok=True)
        warm_shim = self._start_one(directory)
        env = {**warm_key.env, APP_VARIABLE: str(app)}
        recipe = {"python": str(warm_key.python), "directory": str(app), "env": env}
        warm_shim.send({**recipe, "imports_file": str(warm_key.imports_file), "room": warm_key.sandbox})
        return warm_shim

    def _end(self, warm_shim: WarmShim) -> None:
        self._endings.spawn(warm_shim.end())
