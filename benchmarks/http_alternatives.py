"""Measure this project's HTTP server and client beside uvicorn and aiohttp. All are bare proxies.

The complete gateway takes part, too: with keys, routing, counting and a database.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks._packages import installed
from benchmarks.http_hop import Run, Server, load

_HERE = Path(__file__).parent
_ROUNDS = {32: 7, 1: 5}
_PROXIES = (("own", "own"), ("own", "aiohttp"), ("uvicorn", "own"), ("uvicorn", "aiohttp"), ("aiohttp", "aiohttp"))


class Proxy(Server):
    """A process of `_http_proxies`."""

    def __init__(self, server: str, client: str, app_port: int, packages: Path) -> None:
        self.key = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._http_proxies", server, client, str(app_port)],
            env={**os.environ, "PYTHONPATH": str(packages)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())


def main() -> None:
    """Measure and print a table."""
    packages = installed("aiohttp", "aiohttp==3.14.5")
    app = Server("app")
    gateway = Server("gateway", str(app.port))
    proxies = {pair: Proxy(*pair, app.port, packages) for pair in _PROXIES}
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for connections, rounds in _ROUNDS.items():
        for _ in range(rounds):
            runs["directly", connections].append(load(app.port, b"/run", gateway.key, connections, app.pids()))
            for (server, client), proxy in proxies.items():
                run = load(proxy.port, b"/run", gateway.key, connections, proxy.pids())
                runs[f"server {server}, client {client}", connections].append(run)
            run = load(gateway.port, b"/me/bench/run", gateway.key, connections, gateway.pids())
            runs["the gateway, everything on", connections].append(run)
    for process in (*proxies.values(), gateway, app):
        process.close()
    heads = ("p50, p99 ms at 1", "p50, p99 ms at 32", "requests/s at 32", "of direct", "CPU us", "best")
    print(" " * 32 + "".join(f"{head:>19}" for head in heads))
    names = dict.fromkeys(name for name, _ in runs)
    for name in names:
        at = {count: runs[name, count] for count in _ROUNDS}
        times = [
            ", ".join(f"{statistics.median(run[of] for run in at[count]):.2f}" for of in ("p50_ms", "p99_ms"))
            for count in (1, 32)
        ]
        pairs = zip(at[32], runs["directly", 32], strict=True)
        share = statistics.median(run["per_second"] / direct["per_second"] for run, direct in pairs)
        rate, cpu = (statistics.median(run[of] for run in at[32]) for of in ("per_second", "cpu_us"))
        best = min(run["cpu_us"] for run in at[32])
        print(f"{name:32}{times[0]:>19}{times[1]:>19}{rate:>19,.0f}{share:>19.2f}{cpu:>19.1f}{best:>19.1f}")


if __name__ == "__main__":
    main()
