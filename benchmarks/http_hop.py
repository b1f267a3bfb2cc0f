"""Measure the gateway. An app under uvicorn is called directly, through the gateway and through nginx.

The three alternate. The gateway is complete: keys, routing, counting, deadlines and a database on disk.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks._http_nginx import Nginx, is_installed

_BODY = b'{"prompt": "a cat"}'
_ROUNDS = {32: 7, 1: 5}
_SECONDS = 1.0
_RATE_TARGET, _CPU_TARGET, _P99_TARGET = 0.6, 35, 2.0

Run = dict[str, float]


class Server:
    """A process of `_http_servers`; closing its input ends it."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks._http_servers", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        port, *key = self.process.stdout.readline().decode().split()
        self.port = int(port)
        self.key = key[0] if key else ""

    def pids(self) -> list[int]:
        """Return the pid of its process."""
        return [self.process.pid]

    def close(self) -> None:
        """Stop it."""
        self.process.communicate(timeout=20)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time of processes (fields 14 and 15 of /proc/PID/stat)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def loop_seconds(pid: int) -> float:
    """Return the CPU time of a process's event loop. The scheduler counts it."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def load(port: int, path: bytes, key: str, connections: int, pids: Sequence[int]) -> Run:
    """Run the load generator. `cpu_us` is the CPU time of a request, `loop_us` that in the first process's loop."""
    command = [sys.executable, "-m", "benchmarks._http_load", str(port), str(connections), str(_SECONDS)]
    fields = (
        b"Host: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        b"Authorization: Key %b\r\nContent-Length: %d\r\n\r\n%b"
    ) % (key.encode(), len(_BODY), _BODY)
    before, loop_before = cpu_seconds(pids), loop_seconds(pids[0])
    request = b"POST " + path + b" HTTP/1.1\r\n" + fields
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True, timeout=60)
    result: Run = json.loads(done.stdout)
    result["cpu_us"] = (cpu_seconds(pids) - before) / (result["per_second"] * _SECONDS) * 1e6
    result["loop_us"] = (loop_seconds(pids[0]) - loop_before) / (result["per_second"] * _SECONDS) * 1e6
    return result


def main() -> None:
    """Measure and print a table."""
    app = Server("app")
    gateway = Server("gateway", str(app.port))
    forgetful = Server("gateway", str(app.port), "no-history")
    traced = Server("gateway", str(app.port), "traces")
    gated_app = Server("app", "gated")
    gated = Server("gateway", str(gated_app.port), "gated")
    nginx = Nginx(app.port) if is_installed() else None
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for connections, rounds in _ROUNDS.items():
        for _ in range(rounds):
            runs["direct", connections].append(load(app.port, b"/run", gateway.key, connections, app.pids()))
            for name, proxy in (
                ("gateway", gateway),
                ("gated", gated),
                ("no history", forgetful),
                ("traces", traced),
                ("nginx", nginx),
            ):
                if proxy is not None:
                    key = "" if isinstance(proxy, Nginx) else proxy.key
                    run = load(proxy.port, b"/me/bench/run", key, connections, proxy.pids())
                    runs[name, connections].append(run)
    for server in (nginx, gateway, gated, gated_app, forgetful, traced, app):
        if server is not None:
            server.close()
    _show(runs)


def _show(runs: dict[tuple[str, int], list[Run]]) -> None:
    def median(name: str, connections: int, of: str) -> float:
        return statistics.median(run[of] for run in runs[name, connections])

    def of_direct(name: str) -> list[float]:
        pairs = zip(runs["direct", 32], runs[name, 32], strict=True)
        return sorted(through["per_second"] / direct["per_second"] for direct, through in pairs)

    heads = ("p50, p99 ms at 1", "p50, p99 ms at 32", "requests/s at 32")
    print(" " * 10 + "".join(f"{head:>20}" for head in heads) + f"{'of direct':>12}{'CPU us':>10}")
    for name in ("direct", "gateway", "gated", "no history", "traces", "nginx"):
        if not runs[name, 32]:
            continue
        times = [f"{median(name, at, 'p50_ms'):.3f}, {median(name, at, 'p99_ms'):.3f}" for at in (1, 32)]
        rate, cpu = median(name, 32, "per_second"), median(name, 32, "cpu_us")
        share = statistics.median(of_direct(name))
        print(f"{name:10}{times[0]:>20}{times[1]:>20}{rate:>20,.0f}{share:>12.2f}{cpu:>10.1f}")
    ratios = of_direct("gateway")
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"requests/s at 32, of direct: {statistics.median(ratios):.2f} (to beat: {_RATE_TARGET}; rounds: {shown})")
    least = min(run["cpu_us"] for run in runs["gateway", 32])  # least affected by other work on the machine
    cpu = median("gateway", 32, "cpu_us")
    print(f"gateway: {cpu:.1f} us CPU a request at 32, {least:.1f} in the best round (to beat: {_CPU_TARGET})")
    apart = sorted(b["loop_us"] - a["loop_us"] for a, b in zip(runs["gateway", 32], runs["gated", 32], strict=True))
    shown = ", ".join(f"{cost:.1f}" for cost in apart)
    print(f"a gate costs the loop {statistics.median(apart):.1f} us a request (rounds: {shown})")
    pairs = zip(runs["gateway", 32], runs["no history", 32], strict=True)
    costs = sorted(kept["loop_us"] - forgot["loop_us"] for kept, forgot in pairs)
    shown = ", ".join(f"{cost:.1f}" for cost in costs)
    print(f"the request history costs the loop {statistics.median(costs):.1f} us a request (rounds: {shown})")
    pairs = zip(runs["traces", 32], runs["gateway", 32], strict=True)
    costs = sorted(exports["loop_us"] - without["loop_us"] for exports, without in pairs)
    shown = ", ".join(f"{cost:.1f}" for cost in costs)
    print(f"exporting all spans costs the loop {statistics.median(costs):.1f} us a request (rounds: {shown})")
    if not runs["nginx", 32]:
        print("nginx is not installed, so p99 is not compared with it: apt-get install nginx-light")
        return
    for at in (1, 32):
        ratio = median("gateway", at, "p99_ms") / median("nginx", at, "p99_ms")
        print(f"p99 at {at}, of nginx's: {ratio:.2f} (to beat: {_P99_TARGET})")


if __name__ == "__main__":
    main()
