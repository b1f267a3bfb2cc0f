"""A shim without a runner. It waits for its order, and may keep a prewarmed worker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fal_grpc.v1 import shim_pb2
from fal_runner.isolation.mounts import DATA_VARIABLE
from fal_runner.process.subreaper import Subreaper
from fal_runner.shim.worker_process import WorkerProcess, note_imports, place_of
from fal_runner.worker.process_tag import NO_TAG, TAG_VARIABLE

READY = b"ready\n"
"""Reports that the shim listens."""
MOST_ORDER_BYTES = 64 * 1024
"""The longest line; a larger specification comes with Start."""
_MOST_FALSE_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimOrder:
    """Names the runner that a shim supervises.

    Attributes:
        spec: the runner's worker, to start at once; None if Start sends it later.
    """

    directory: Path
    token: str = field(repr=False)
    spec: shim_pb2.RunnerSpec | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRecipe:
    """How to start a worker without a job. Nothing in it is secret.

    Attributes:
        python: the interpreter of an app's environment.
        directory: its working directory, which becomes the runner's.
        env: its environment variables until it gets its job's.
        imports_file: lists the modules to import; see worker/prewarm.py.
        room: as in RunnerSpec; its private part is beside its working directory.
    """

    python: str
    directory: str
    env: Mapping[str, str]
    imports_file: str
    room: str = ""

    def suits(self, spec: shim_pb2.RunnerSpec) -> bool:
        """Return whether this runner's worker would start in the same way. It would also see the same file system."""
        same = (self.python, self.imports_file, self.room) == (spec.python, spec.imports_file, spec.room)
        return same and self.env.get(DATA_VARIABLE) == spec.env.get(DATA_VARIABLE)


class PrewarmedWorker:
    """Keeps a worker without a job. It replaces one that reports that it must not be used.

    Args:
        reaper: starts processes.
        recipe: how to start it.
        answers: gets `ahead PID NUMBER` once the worker has imported everything listed; NUMBER is that of the last
            `look_again`.

    Raises:
        OSError: there is no room for one more process.
    """

    def __init__(self, reaper: Subreaper, recipe: WarmRecipe, answers: asyncio.StreamWriter) -> None:
        self._reaper = reaper
        self.recipe = recipe
        self._answers = answers
        self._ready = False
        self._asked = 0
        self._process: WorkerProcess | None = self._start()
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def look_again(self, number: int) -> None:
        """Let it import newly listed modules; the answer carries the number."""
        self._asked = number
        if self._process is not None:
            self._ready = False
            await self._process.ask({"again": number}, last=False)
        elif self._listening.done():  # it gave up; what went wrong may be over
            with contextlib.suppress(OSError):  # there is no room now, as above
                self._process = self._start()
                self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def take(self, spec: shim_pb2.RunnerSpec) -> WorkerProcess | None:
        """Give it to this runner. If it does not suit, end it and return None."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        process, self._process = self._process, None
        if process is None:
            return None
        if self._ready and self.recipe.suits(spec) and not process.child.exited.done():
            return process
        await process.discard()
        return None

    def _start(self) -> WorkerProcess:
        env = {**self.recipe.env, TAG_VARIABLE: NO_TAG}
        recipe = self.recipe
        place = place_of(recipe.room, Path(recipe.directory).parent)
        return WorkerProcess(self._reaper, recipe.python, env, place, recipe.directory, recipe.imports_file)

    async def _listen(self) -> None:
        starts, fresh = 0, self._asked
        while self._process is not None:
            message = await self._process.listen()
            if message is not None and note_imports(message, self.recipe.python, self.recipe.imports_file):
                continue
            if message is not None:
                answered = message.head["ahead"] or fresh  # a new process has read the list at its start
                self._ready = answered == self._asked
                if self._ready:
                    self._answers.write(b"ahead %d %d\n" % (self._process.child.pid, self._asked))
                continue
            self._ready = False
            process, self._process = self._process, None
            await process.discard()
            starts, fresh = starts + 1, self._asked
            if starts < _MOST_FALSE_STARTS:
                with contextlib.suppress(OSError):  # there is no room now, so the runner's own worker starts later
                    self._process = self._start()


async def wait_for_order(
    lines: asyncio.StreamReader, answers: asyncio.StreamWriter, reaper: Subreaper
) -> tuple[ShimOrder | None, PrewarmedWorker | None]:
    """Wait for the order; return it with the prewarmed worker, if any. The order is None if it never comes.

    Args:
        lines: JSON objects. One with `token` is the order; one with `again`, a number, makes the worker read the list
            of imports again; any other is the recipe for a worker.
        answers: see PrewarmedWorker.
    """
    worker: PrewarmedWorker | None = None
    while line := await lines.readline():
        message = json.loads(line)
        if "token" in message:
            spec = shim_pb2.RunnerSpec.FromString(base64.b64decode(message["spec"])) if "spec" in message else None
            return ShimOrder(directory=Path(message["directory"]), token=str(message["token"]), spec=spec), worker
        if "again" in message:
            if worker is not None:
                await worker.look_again(int(message["again"]))
            continue
        recipe = WarmRecipe(**message)
        if os.access(recipe.python, os.X_OK):
            with contextlib.suppress(OSError):  # there is no room now, as above
                worker = PrewarmedWorker(reaper, recipe, answers)
    return None, worker
