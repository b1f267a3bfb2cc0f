"""Measure an endpoint in a runner's server and in bare FastAPI. The figure is the CPU time of a request.

Each server is a process that gives requests to uvicorn's protocol without sockets, so that the times depend little on
other work of the machine. The servers alternate; a share is one of two neighbors.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

_ROUNDS = 7
_KINDS = {
    "bare": "bare FastAPI, no access log",
    "logging": "bare FastAPI, uvicorn's access log",
    "silent": "a runner's server, without lines",
    "runner": "a runner's server",
}
# As a busy runner's shim, which lets lines wait: waking a reader for each would cost the writer more than the line.
_READER = "import os, time\nwhile os.read(0, 65536):\n    time.sleep(0.02)"


class _Server:
    """A process of `_app_server`. Its output goes through a pipe as a runner's does."""

    def __init__(self, kind: str, endpoint: str) -> None:
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "benchmarks._app_server", kind, endpoint, str(writing)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[writing]
        )
        os.close(writing)
        self._results = os.fdopen(reading)
        self._drain = subprocess.Popen([sys.executable, "-c", _READER], stdin=self._process.stdout)

    def measure(self) -> float:
        """Return the CPU time of a request in microseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        answer = self._results.readline()
        if not answer:
            raise RuntimeError(f"a server ended with {self._process.wait()}")
        found: float = json.loads(answer)
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._drain.wait(timeout=20)
        self._results.close()


def main() -> None:
    """Measure and print."""
    for endpoint in ("async", "sync"):
        servers = {kind: _Server(kind, endpoint) for kind in _KINDS}
        found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
        for _ in range(_ROUNDS):
            for kind, server in servers.items():
                found[kind].append(server.measure())
        for server in servers.values():
            server.close()
        print(f"{endpoint} endpoint{'CPU us':>33}{'least':>8}{'rate of bare':>14}")
        for kind, label in _KINDS.items():
            share = statistics.median(base / own for base, own in zip(found["bare"], found[kind], strict=True))
            print(f"{label:40}{statistics.median(found[kind]):8.0f}{min(found[kind]):8.0f}{share:14.2f}")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
