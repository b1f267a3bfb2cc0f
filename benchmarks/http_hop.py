"""What the gateway costs: an app under uvicorn asked directly and through the front door, in turns, in one run."""

from __future__ import annotations

import json
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
_ROUNDS = 3
_SECONDS = 1.5
_TARGET = 0.6


class Server:
    """A process of `_http_servers`, ended by closing its input."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(_HERE / "_http_servers.py"), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def close(self) -> bytes:
        """End it; what it said last."""
        rest, _ = self.process.communicate(timeout=20)
        return rest


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
    asked = 0.0
    for connections in (32, 1):
        for _ in range(_ROUNDS):
            for name, port, path in (("direct", app.port, b"/run"), ("gateway", gateway.port, b"/me/bench/run")):
                result = load(port, path, connections, _SECONDS)
                runs.setdefault((name, connections), []).append(result)
                asked += result["per_second"] * _SECONDS if name == "gateway" else 0
    cpu = json.loads(gateway.close())["cpu_seconds"]
    app.close()

    def median(name: str, connections: int, of: str) -> float:
        return statistics.median(run[of] for run in runs[name, connections])

    print(f"{'':10}{'p50 ms at 1':>14}{'p99 ms at 1':>14}{'requests/s at 32':>20}{'of direct':>12}")
    for name in ("direct", "gateway"):
        p50, p99, rate = median(name, 1, "p50_ms"), median(name, 1, "p99_ms"), median(name, 32, "per_second")
        print(f"{name:10}{p50:14.3f}{p99:14.3f}{rate:20,.0f}{rate / median('direct', 32, 'per_second'):12.2f}")
    ratios = [
        through["per_second"] / direct["per_second"]
        for direct, through in zip(runs["direct", 32], runs["gateway", 32], strict=True)
    ]
    print(f"of direct, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)} (to beat: {_TARGET})")
    print(f"gateway: {cpu / asked * 1e6:.1f} us CPU a request")


if __name__ == "__main__":
    main()
