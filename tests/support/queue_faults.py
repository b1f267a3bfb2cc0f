"""Faults of a queue on PostgreSQL. They give the numbers of lost, left and repeated jobs."""

from __future__ import annotations

import collections
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from tests.support.controller import Controller, start
from tests.support.left_behind import kill_everything, worker_of
from tests.support.postgresql import Postgresql

_PRODUCERS, _PAUSE = 4, 0.1
_APP = """
import asyncio
import contextlib
import os

import fal


class Noting(fal.App, name="noting", keep_alive=600, max_concurrency=1, max_multiplexing={slots}):
    machine_type = "XS"
    app_auth = "private"

    @fal.endpoint("/")
    async def note(self, number: int) -> dict:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), {seconds})
        descriptor = os.open({ledger!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{{number}}\\n".encode())
        os.close(descriptor)
        return {{}}
"""


class Side(Protocol):
    """A queue with a worker. Its jobs finally write their numbers to a ledger.

    Attributes:
        database: its name.
        table: of its jobs.
        left: a query for the number of incomplete jobs.
        ledger: the numbers, a line each.
    """

    database: str
    table: str
    left: str
    ledger: Path

    def produce(self, first: int) -> None:
        """Submit jobs from a number on, until `stop_producing`."""

    def stop_producing(self) -> set[int]:
        """Stop; return the numbers of the accepted jobs."""
        ...

    def kill_worker(self) -> None:
        """Kill the process that runs the jobs (SIGKILL), if there is one."""

    def close(self) -> None:
        """End everything."""


class OurQueue:
    """A controller with an app of one runner, and four HTTP producers.

    Args:
        folder: for its state directory and the ledger.
    """

    table = "requests"
    left = "select count(*) from requests where state <> 'COMPLETED'"

    def __init__(self, server: Postgresql, folder: Path, *, job_seconds: float = 0.02, slots: int = 8) -> None:
        self.database = "ours"
        self.ledger = folder / "ledger"
        self._state_dir = folder / "state"
        self._environment = {"FAL_DATABASE_URL": server.make(self.database)}
        self.controller: Controller = start(self._state_dir, environment=self._environment)
        app = folder / "noting.py"
        app.write_text(_APP.format(slots=slots, seconds=job_seconds, ledger=str(self.ledger)))
        self.controller.fal("deploy", str(app))
        assert self.controller.call("/local/noting/?number=-1", {}, key=self.controller.key).status == 200
        self._ended = threading.Event()
        self._accepted: set[int] = set()
        self._threads: list[threading.Thread] = []

    def produce(self, first: int) -> None:
        self._ended.clear()
        self._accepted = set()
        turns = range(_PRODUCERS)
        self._threads = [threading.Thread(target=self._loop, args=(first + turn,), daemon=True) for turn in turns]
        for thread in self._threads:
            thread.start()

    def stop_producing(self) -> set[int]:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return set(self._accepted)

    def kill_worker(self) -> None:
        """Kill the runner's process."""
        for runner in (self._state_dir / "runners").iterdir():
            try:
                os.kill(worker_of(self._state_dir, runner.name), signal.SIGKILL)
            except (OSError, ValueError, LookupError, psutil.Error):
                continue  # it is starting, or has ended

    def kill_controller(self) -> None:
        """Kill the controller, and start it again."""
        self.controller.process.kill()
        self.controller.process.wait()
        self.controller = start(self._state_dir, environment=self._environment)

    def close(self) -> None:
        if self.controller.process.poll() is None:
            self.controller.stop()
        kill_everything(self._state_dir)

    def _loop(self, number: int) -> None:
        while not self._ended.is_set():
            if self._hand_in(number):
                self._accepted.add(number)
                number += _PRODUCERS
            self._ended.wait(_PAUSE)

    def _hand_in(self, number: int) -> bool:
        try:
            answer = self.controller.call(
                f"/queue/local/noting/?number={number}",
                {},
                key=self.controller.key,
                headers={"Idempotency-Key": str(number)},
                timeout=60,
            )
        except OSError:
            return False  # no controller is there now
        return answer.status == 200


@dataclass(frozen=True, kw_only=True)
class Fate:
    """The outcome of the jobs of one fault.

    Attributes:
        lost: accepted but never done, although no job is left.
        left: accepted but not completed within `patience_seconds`.
        twice: completely done more than once.
        drained_seconds: from the last submission to the last completion.
    """

    accepted: int
    lost: int
    left: int
    twice: int
    drained_seconds: float


def suffered(
    side: Side,
    fault: Callable[[Side, Postgresql], None],
    server: Postgresql,
    first: int,
    *,
    patience_seconds: float = 60,
) -> Fate:
    """Run a queue through a fault; return the outcome of its jobs."""
    side.produce(first)
    _wait_for_more(side, 20)
    fault(side, server)
    _wait_for_more(side, 20)
    accepted = side.stop_producing()
    began = time.monotonic()
    while left := int(server.ask(side.left, side.database)):
        if time.monotonic() - began > patience_seconds:
            break
        threading.Event().wait(0.1)
    took = time.monotonic() - began
    counts = collections.Counter(number for number in _numbers(side) if number >= first)
    missing = sum(number not in counts for number in accepted)
    return Fate(
        accepted=len(accepted),
        lost=max(missing - left, 0),
        left=left,
        twice=sum(count > 1 for count in counts.values()),
        drained_seconds=took,
    )


def _numbers(side: Side) -> list[int]:
    return [int(line) for line in side.ledger.read_text().split()] if side.ledger.exists() else []


def _wait_for_more(side: Side, more: int) -> None:
    """Wait until more jobs are done, for half a minute at most."""
    wanted, began = len(_numbers(side)) + more, time.monotonic()
    while len(_numbers(side)) < wanted and time.monotonic() - began < 30:
        threading.Event().wait(0.05)


def crashed(side: Side, server: Postgresql) -> None:
    """Crash the database and start it again."""
    server.crash()


def cut_off(side: Side, server: Postgresql) -> None:
    """End all connections of the database, five times."""
    for _ in range(5):
        server.cut(side.database)
        threading.Event().wait(0.3)


def blocked(side: Side, server: Postgresql) -> None:
    """Lock the jobs' table for three seconds. All connections of a pool then wait."""
    server.ask(f"begin; lock table {side.table} in access exclusive mode; select pg_sleep(3); commit", side.database)


def killed(side: Side, server: Postgresql) -> None:
    """Kill the worker."""
    side.kill_worker()


def killed_often(side: Side, server: Postgresql) -> None:
    """Kill the worker five times."""
    for _ in range(5):
        side.kill_worker()
        threading.Event().wait(0.7)


def controller_killed(side: Side, server: Postgresql) -> None:
    """Kill our controller, and start it again."""
    assert isinstance(side, OurQueue)
    side.kill_controller()


FAULTS: Mapping[str, Callable[[Side, Postgresql], None]] = {
    "database crashes": crashed,
    "backends ended, 5 times": cut_off,
    "pool exhausted, 3 s": blocked,
    "worker killed": killed,
    "worker killed, 5 times": killed_often,
}
