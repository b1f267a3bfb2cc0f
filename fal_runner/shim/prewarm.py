"""A shim that has no runner yet: it waits to be told whose it is, and may keep a worker that waits with it."""

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
from fal_runner.shim.worker_process import WorkerProcess
from fal_runner.worker.process_tag import NO_TAG, TAG_VARIABLE

READY = b"ready\n"
"""The shim listens."""
MOST_ORDER_BYTES = 64 * 1024
"""A longer line is none: a larger specification comes by Start."""
_MOST_FALSE_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimOrder:
    """Whose shim it is to be.

    Attributes:
        spec: the runner's worker, which is started at once; None where it is told of later, by Start.
    """

    directory: Path
    token: str = field(repr=False)
    spec: shim_pb2.RunnerSpec | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRecipe:
    """What a worker that has no job yet is started with; nothing secret.

    Attributes:
        python: the interpreter of an app's environment.
        directory: where it runs; moved to where the runner's is, once there is one.
        env: its environment variables, until it has those of its job.
        imports_file: what it is to import; see ahead.
    """

    python: str
    directory: str
    env: Mapping[str, str]
    imports_file: str

    def suits(self, spec: shim_pb2.RunnerSpec) -> bool:
        """Whether this runner's worker would be started with the same, and see the same file system."""
        same = (self.python, self.imports_file) == (spec.python, spec.imports_file)
        return same and self.env.get(DATA_VARIABLE) == spec.env.get(DATA_VARIABLE)


class PrewarmedWorker:
    """Keeps a worker that has no job yet; one that has found that it is fit for none is replaced.

    Args:
        reaper: who starts processes here.
        recipe: what it is started with.
        answers: told `ahead PID NUMBER` when it has imported what there is, with the number of the last look.

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
        """Have it import what was noted meanwhile; the answer has the number."""
        self._asked = number
        if self._process is not None:
            self._ready = False
            await self._process.ask({"again": number}, last=False)

    async def take(self, spec: shim_pb2.RunnerSpec) -> WorkerProcess | None:
        """It for this runner; None where it does not suit, and then it is gone."""
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
        return WorkerProcess(self._reaper, self.recipe.python, env, self.recipe.directory, self.recipe.imports_file)

    async def _listen(self) -> None:
        starts = fresh = 0
        while self._process is not None:
            told = await self._process.listen()
            if told is not None:
                answered = told.head["ahead"] or fresh  # a new one has looked when it was started
                self._ready = answered == self._asked
                if self._ready:
                    self._answers.write(b"ahead %d %d\n" % (self._process.child.pid, self._asked))
                continue
            self._ready = False
            process, self._process = self._process, None
            await process.discard()
            starts, fresh = starts + 1, self._asked
            if starts < _MOST_FALSE_STARTS:
                with contextlib.suppress(OSError):  # no room: the runner's worker is started when there is one
                    self._process = self._start()


async def wait_for_order(
    lines: asyncio.StreamReader, answers: asyncio.StreamWriter, reaper: Subreaper
) -> tuple[ShimOrder | None, PrewarmedWorker | None]:
    """Whose shim this is to be, and the worker that waited with it, if any; no order where there never is a runner.

    Args:
        lines: each a JSON object: with `token` the order; with `again`, a number, that the worker that waits is to
            look again what to import; else its recipe.
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
            with contextlib.suppress(OSError):  # as above
                worker = PrewarmedWorker(reaper, recipe, answers)
    return None, worker
