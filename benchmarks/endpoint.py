"""Measure a real endpoint through the gateway, and directly at its runner. The baseline is bare FastAPI under uvicorn.

All alternate, with 32 connections and with one. The CPU time of a request through the gateway is shown by process:
controller, shim (which stores the access lines) and the app's worker.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fal_server.core.addresses import gate_key_of
from fal_server.store.crypto.master_key import load_master_key
from fal_server.store.crypto.vault import AesVault
from tests.support.controller import Controller, running

_ROUNDS = 7
_SECONDS = 1.0
_AT_ONCE = (32, 1)
_BODY = b'{"name": "Ada"}'
APP = """
import fal
from pydantic import BaseModel


class Input(BaseModel):
    name: str


class Output(BaseModel):
    message: str


class Bench(fal.App, keep_alive=600, max_concurrency=1, max_multiplexing=64):
    machine_type = "XS"
    app_auth = "private"

    @fal.endpoint("/sync")
    def sync(self, request: Input) -> Output:
        return Output(message="Hello, " + request.name)

    @fal.endpoint("/async")
    async def asynchronous(self, request: Input) -> Output:
        return Output(message="Hello, " + request.name)
"""
_BARE = """
import socket, sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Input(BaseModel):
    name: str


class Output(BaseModel):
    message: str


api = FastAPI()


@api.post("/sync")
def sync(request: Input) -> Output:
    return Output(message="Hello, " + request.name)


@api.post("/async")
async def asynchronous(request: Input) -> Output:
    return Output(message="Hello, " + request.name)


listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
config = uvicorn.Config(api, access_log=len(sys.argv) > 1, log_level="info")
uvicorn.Server(config).run(sockets=[listening])
"""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, to the nanosecond (/proc/PID/task/*/schedstat)."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


@dataclass
class Server:
    """A server to call, and the processes that a call uses.

    Attributes:
        rates: requests a second, of each round.
        p99s: the 99th percentile in milliseconds, of each round.
        used: CPU microseconds of a request by process, of each round.
    """

    port: int
    prefix: str
    processes: dict[str, int]
    key: str = ""
    gate_key: str = ""
    rates: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    p50s: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    p99s: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    used: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))

    def load(self, path: str, connections: int) -> None:
        """Call the server for a second."""
        fields = (
            "Host: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n"
            f"Authorization: Key {self.key}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        )
        request = f"POST {self.prefix}/{path} HTTP/1.1\r\n{fields}".encode() + _BODY
        command = [sys.executable, "-m", "benchmarks._http_load", str(self.port), str(connections), str(_SECONDS)]
        command += [self.gate_key] if self.gate_key else []
        before = {name: cpu_seconds(pid) for name, pid in self.processes.items()}
        done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True, timeout=60)
        found: dict[str, float] = json.loads(done.stdout)
        count = found["per_second"] * _SECONDS
        at = path, connections
        self.used[at].append(
            {name: (cpu_seconds(pid) - before[name]) / count * 1e6 for name, pid in self.processes.items()}
        )
        self.rates[at].append(found["per_second"])
        self.p50s[at].append(found["p50_ms"])
        self.p99s[at].append(found["p99_ms"])


@contextmanager
def bare(*, access_log: bool) -> Generator[Server]:
    """Serve the endpoint in FastAPI under uvicorn, without this project."""
    command = [sys.executable, "-c", _BARE, *(["log"] if access_log else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)  # a pipe, as of a runner
        try:
            yield Server(port, "", {"worker": process.pid})
        finally:
            process.terminate()
            process.wait()
            drain.wait()


def runner_of(controller: Controller) -> tuple[psutil.Process, int, str]:
    """Return the only runner's worker, its app's port and the gate's key."""
    with closing(sqlite3.connect(controller.state_dir / "fal.db")) as database:
        query = "SELECT runner_id, port, sealed_token FROM runners WHERE port IS NOT NULL"
        ((runner_id, port, sealed),) = database.execute(query).fetchall()
    vault = AesVault(load_master_key(controller.state_dir, {}))
    gate_key = gate_key_of(vault.open(f"runner/{runner_id}/token", sealed))
    processes = psutil.Process(controller.process.pid).children(recursive=True)
    return next(one for one in processes if _listens(one, port)), port, gate_key


def _listens(process: psutil.Process, port: int) -> bool:
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in process.net_connections("tcp"))


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory() as place,
        running(Path(place) / "state", "--warm-workers", "0") as controller,
        bare(access_log=False) as plain,
        bare(access_log=True) as logging,
    ):
        app = Path(place) / "bench_app.py"
        app.write_text(APP)
        controller.fal("deploy", str(app), "--app-name", "bench")
        assert controller.call("/local/bench/sync", {"name": "Ada"}, key=controller.key).status == 200
        own = psutil.Process(controller.process.pid)
        worker, port, gate_key = runner_of(controller)
        shim = worker.parent()
        assert shim is not None
        every = {"controller": own.pid, "shim": shim.pid, "worker": worker.pid}
        servers = {
            "bare FastAPI": plain,
            "bare, access log": logging,
            "runner": Server(port, "", every, gate_key=gate_key),
            "gateway": Server(controller.port, "/local/bench", every, controller.key),
        }
        for path in ("sync", "async"):
            for connections in _AT_ONCE:
                for _ in range(_ROUNDS):
                    for server in servers.values():
                        server.load(path, connections)
    for path in ("sync", "async"):
        for connections in _AT_ONCE:
            _show(path, connections, servers)
    print(f"load {os.getloadavg()[0]:.1f}")


def _show(path: str, connections: int, servers: dict[str, Server]) -> None:
    at = path, connections
    print(f"{path} endpoint, {connections} connections")
    print(f"{'':18}{'per s':>8}{'of bare':>9}{'p50 ms':>9}{'p99 ms':>9}   CPU us a request")
    least = servers["bare FastAPI"].rates[at]
    for name, server in servers.items():
        share = statistics.median(rate / base for rate, base in zip(server.rates[at], least, strict=True))
        spent = {each: statistics.median(round_[each] for round_ in server.used[at]) for each in server.processes}
        shown = ", ".join(f"{each} {value:.0f}" for each, value in spent.items())
        print(
            f"{name:18}{statistics.median(server.rates[at]):8,.0f}{share:9.2f}"
            f"{statistics.median(server.p50s[at]):9.2f}{statistics.median(server.p99s[at]):9.2f}   {shown}"
        )


if __name__ == "__main__":
    main()
