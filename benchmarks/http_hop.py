"""What the gateway costs: an app under uvicorn asked directly and through the front door, in turns, in one run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_BODY = b'{"prompt": "a cat"}'
_FIELDS = (
    b"Host: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n"
    b"Authorization: Key bench:secret\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_ROUNDS = {32: 5, 1: 3}
_SECONDS = 1.0
_TARGET = 0.6


class Server:
    """A process of `_http_servers`, ended by closing its input."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(_HERE / "_http_servers.py"), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def cpu_seconds(self) -> float:
        """What it has used of the processors until now (fields 14 and 15 of /proc/PID/stat)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        self.process.communicate(timeout=20)


def load(port: int, path: bytes, connections: int, seconds: float) -> dict[str, float]:
    """One run of the load generator."""
    command = [sys.executable, str(_HERE / "_http_load.py"), str(port), str(connections), str(seconds)]
    request = b"POST " + path + b" HTTP/1.1\r\n" + _FIELDS
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True, timeout=60)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure and print a table."""
    app = Server("app")
    gateway = Server("gateway", str(app.port))
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    used: list[float] = []
    for connections, rounds in _ROUNDS.items():
        for _ in range(rounds):
            direct = load(app.port, b"/run", connections, _SECONDS)
            before = gateway.cpu_seconds()
            through = load(gateway.port, b"/me/bench/run", connections, _SECONDS)
            used.append((gateway.cpu_seconds() - before) / (through["per_second"] * _SECONDS))
            runs.setdefault(("direct", connections), []).append(direct)
            runs.setdefault(("gateway", connections), []).append(through)
    gateway.close()
    app.close()

    def median(name: str, connections: int, of: str) -> float:
        return statistics.median(run[of] for run in runs[name, connections])

    print(f"{'':10}{'p50 ms at 1':>14}{'p99 ms at 1':>14}{'requests/s at 32':>20}")
    for name in ("direct", "gateway"):
        p50, p99, rate = median(name, 1, "p50_ms"), median(name, 1, "p99_ms"), median(name, 32, "per_second")
        print(f"{name:10}{p50:14.3f}{p99:14.3f}{rate:20,.0f}")
    pairs = zip(runs["direct", 32], runs["gateway", 32], strict=True)
    ratios = sorted(through["per_second"] / direct["per_second"] for direct, through in pairs)
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"requests/s at 32, of direct: {statistics.median(ratios):.2f} (to beat: {_TARGET}; rounds: {shown})")
    at_32 = statistics.median(used[: _ROUNDS[32]]) * 1e6
    print(f"gateway: {at_32:.1f} us CPU a request at 32 connections (to beat: 35)")


if __name__ == "__main__":
    main()
