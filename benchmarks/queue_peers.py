"""Measure the queue on PostgreSQL beside procrastinate. It shows rates, times, and the effect of faults.

Rates: each side has producers, worker and queue in one process, with ten connections; a job of 200 bytes does nothing;
commits wait for the disk. This project also encrypts the job and stores an answer. Faults: this project's side is a
whole controller with a runner, called over HTTP; procrastinate's is a process that submits jobs, and a worker that is
restarted whenever it ends.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import psutil

from tests.support.ending import ends_with_us
from tests.support.postgresql import Postgresql, postgresql
from tests.support.queue_faults import FAULTS, Fate, OurQueue, Side, controller_killed, suffered

_ROOT = Path(__file__).resolve().parent.parent
_PEERS = _ROOT / ".cache" / "queue-peers-venv" / "bin" / "python"
_OURS, _THEIRS = "fal-grpc", "procrastinate"
_ROUNDS = 1
_JOBS = {1: 150, 32: 960}


class Procrastinate:
    """A process that submits jobs, and a worker. The worker is restarted whenever it ends."""

    table = "procrastinate_jobs"
    # procrastinate's own task for stalled jobs does not count.
    left = "select count(*) from procrastinate_jobs where status in ('todo', 'doing') and task_name = 'note'"

    def __init__(self, server: Postgresql, folder: Path) -> None:
        self.database = "theirs"
        self.ledger = folder / "ledger"
        self._url = _libpq(server.make(self.database))
        self._said = (folder / "said").open("ab")
        _theirs("make", self._url)
        self._closed = threading.Event()
        self._worker = self._start("work", self._url, str(self.ledger))
        self._producer: subprocess.Popen[bytes] | None = None
        self.ended_by_itself = 0
        self._killed = False
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(_PEERS), "-m", "benchmarks._queue_procrastinate", *words],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if words[0] == "produce" else self._said,
            stderr=self._said,
        )

    def _keep(self) -> None:
        """Restart the worker whenever it ends, as a supervisor does."""
        while True:
            self._worker.wait()
            if self._closed.is_set():
                return
            self.ended_by_itself += not self._killed
            self._killed = False
            self._worker = self._start("work", self._url, str(self.ledger))

    def produce(self, first: int) -> None:
        self._producer = self._start("produce", self._url, str(first))

    def stop_producing(self) -> set[int]:
        assert self._producer is not None
        output, _ = self._producer.communicate()
        return {int(line) for line in output.split()}

    def kill_worker(self) -> None:
        self._killed = True
        self._worker.kill()

    def close(self) -> None:
        self._closed.set()
        self._worker.kill()
        self._keeper.join()
        self._said.close()


def _libpq(url: str) -> str:
    return url.replace("+asyncpg", "")


def _theirs(*words: str) -> str:
    command = [*ends_with_us(signal.SIGKILL), str(_PEERS), "-m", "benchmarks._queue_procrastinate", *words]
    return subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout


def _ours(*words: str) -> str:
    command = [*ends_with_us(signal.SIGKILL), sys.executable, "-m", "benchmarks._queue_ours", *words]
    return subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout


def _cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds of a server and its children. Ended ones count."""
    used = process.cpu_times()
    living = 0.0
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        living += times.user + times.system + times.children_user + times.children_system
    return used.user + used.system + used.children_user + used.children_system + living


def rates(server: Postgresql) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Measure both sides alternately; return the figures of each round."""
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    process = psutil.Process(server.process.pid)
    for turn in range(_ROUNDS):
        for at_once, jobs in _JOBS.items():
            for side in (_OURS, _THEIRS):
                url = server.make(f"rate_{side.replace('-', '_')}_{turn}_{at_once}")
                if side == _THEIRS:
                    _theirs("make", _libpq(url))
                before = _cpu_of(process)
                words = (str(jobs), str(at_once))
                said = _ours(url, *words) if side == _OURS else _theirs("rate", _libpq(url), *words)
                figures = json.loads(said)
                # Both phases and the warm-up.
                figures["server"] = (_cpu_of(process) - before) / (2 * jobs + 2 * at_once) * 1000
                found[side, at_once].append(figures)
    return found


def faults(name: str, folder: Path) -> None:
    """Let a side work through each fault, with a new server. Print what became of the jobs."""
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory), durable=True) as server:
        side: Side = OurQueue(server, folder) if name == _OURS else Procrastinate(server, folder)
        try:
            for number, (title, fault) in enumerate(FAULTS.items(), 1):
                _print_fate(title, name, suffered(side, fault, server, number * 1_000_000))
            if isinstance(side, OurQueue):
                fate = suffered(side, controller_killed, server, 99_000_000)
                _print_fate("controller killed", name, fate)
        finally:
            side.close()
    if isinstance(side, Procrastinate):
        print(f"\nprocrastinate's worker ended by itself {side.ended_by_itself} times, and was started again.")


def _print_rates(found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    heads = "accepted/s | completed/s | p50 ms | p99 ms | CPU ms a job | PostgreSQL's CPU ms a job"
    print(f"| producers | queue | {heads} |\n| --- | --- |{' --- |' * 6}")
    for at_once in _JOBS:
        for side in (_OURS, _THEIRS):
            middle = {
                name: statistics.median(one[name] for one in found[side, at_once])
                for name in ("accepted", "completed", "p50", "p99", "cpu", "server")
            }
            print(
                f"| {at_once} | {side} | {middle['accepted']:.0f} | {middle['completed']:.0f} | {middle['p50']:.1f} "
                f"| {middle['p99']:.1f} | {middle['cpu']:.2f} | {middle['server']:.2f} |"
            )
    print()


def _print_fate(title: str, name: str, fate: Fate) -> None:
    seconds = "not" if fate.left else f"{fate.drained_seconds:.1f}"
    print(f"| {title} | {name} | {fate.accepted} | {fate.lost} | {fate.left} | {fate.twice} | {seconds} |", flush=True)


def main() -> None:
    """Measure and print two tables."""
    if not _PEERS.exists():
        print("procrastinate is not installed: make bench-queue-peers does that")
        return
    listed = _theirs("versions").strip()
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory), durable=True) as server:
        version = server.ask("show server_version")
        print(f"{listed}; PostgreSQL {version}; CPython {platform.python_version()}; load {os.getloadavg()[0]:.0f}\n")
        _print_rates(rates(server))
    print("| fault | queue | accepted | lost | left | done twice | all done after, s |")
    print(f"|{' --- |' * 7}")
    for name in (_OURS, _THEIRS):
        with tempfile.TemporaryDirectory(prefix="peers") as folder:
            faults(name, Path(folder))
    print(f"\nload {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
