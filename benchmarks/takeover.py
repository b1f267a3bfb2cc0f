"""Measure how long a takeover takes with 1,000 runners. The owner is killed.

Two controllers and a node on PostgreSQL; the runners have no processes, but the controllers hold a connection to each.
The owner is killed with requests in the queue, and the lease of 5 seconds has to end before another can claim it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks._pretended_node import GPU
from fal_server.store.sql.lease import TTL_SECONDS
from tests.support.controller import Controller, start
from tests.support.postgresql import postgresql
from tests.support.waiting import until

RUNNERS = int(os.environ.get("TAKEOVER_RUNNERS", "1000"))
QUEUED = 50
ROUNDS = 3
MOST_SECONDS = TTL_SECONDS + 1
APP = f"""
import fal

class Far(fal.App, name="far", keep_alive=3600, min_concurrency={RUNNERS}, max_concurrency={RUNNERS}):
    machine_type = "{GPU}"
    app_auth = "public"

    @fal.endpoint("/")
    def run(self) -> dict:
        return {{}}
"""


def begin(root: Path, name: str, url: str) -> Controller:
    """Start a controller, which waits if there is another."""
    return start(
        root / name,
        *("--standby", "--content-dir", str(root / "content")),
        environment={"FAL_DATABASE_URL": url, "FAL_MASTER_KEY_FILE": str(root / "master.key")},
    )


def listed(controller: Controller) -> int:
    """Return how many runners the controller lists. It is 0 without an answer."""
    try:
        answer = controller.call("/fal.v1.Runners/ListRunners", {}, key=controller.key)
    except OSError:
        return 0
    return len(dict(answer.json())["runners"]) if answer.status == 200 else 0


def called(controller: Controller, path: str = "/local/far") -> dict[str, object] | None:
    """Return the answer of the app or its queue. None if there is none."""
    try:
        answer = controller.call(path, {})
    except OSError:
        return None
    return dict(answer.json()) if answer.status == 200 else None


def completed(controller: Controller, request: object) -> bool:
    """Return whether a queued request is."""
    answer = controller.call(f"/queue/local/far/requests/{request}/status", key=controller.key)
    return answer.status in {200, 202} and dict(answer.json())["status"] == "COMPLETED"


def seconds_until(look: Callable[[], object], since: float) -> float:
    """Ask until there is an answer; return the seconds since then."""
    until(look, "an answer", 120)
    return time.monotonic() - since


def measured(owner: Controller, other: Controller) -> tuple[float, float, float, int]:
    """Kill the owner.

    Returns:
        The seconds until the other lists and until it calls, its seconds of CPU until then, and how many requests that
        the queue had accepted completed.
    """
    accepted = [answer["request_id"] for _ in range(QUEUED) if (answer := called(owner, "/queue/local/far"))]
    process = psutil.Process(other.process.pid)
    before = process.cpu_times()
    since = time.monotonic()
    owner.process.kill()
    owner.process.wait()
    calls: list[float] = []
    calling = threading.Thread(target=lambda: calls.append(seconds_until(lambda: called(other) is not None, since)))
    calling.start()
    lists = seconds_until(lambda: listed(other) >= RUNNERS, since)
    calling.join()
    after = process.cpu_times()
    busy = after.user + after.system - before.user - before.system
    for request in accepted:
        until(lambda: completed(other, request), f"request {request}", 120)  # noqa: B023
    return lists, calls[0], busy, len(accepted)


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="pg") as data, postgresql(Path(data), durable=True) as server:
        root = Path(data) / "root"
        root.mkdir()
        url = server.make("fal")
        (root / "master.key").write_text("bWFzdGVyLWtleS1vZi10d28tY29udHJvbGxlcnMtMDE=\n")
        (root / "master.key").chmod(0o600)
        (root / "far.py").write_text(APP)
        command = [sys.executable, "-m", "benchmarks._pretended_node", str(root / "node"), str(RUNNERS)]
        node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert node.stdout is not None
        controllers: list[Controller] = []
        try:
            address, token = node.stdout.readline().split()
            controllers = [begin(root, "first", url), begin(root, "second", url)]
            controllers[0].fal("node", "join", address, stdin=f"{token}\n".encode())
            controllers[0].fal("deploy", str(root / "far.py"))
            until(lambda: ready(controllers[0]) == RUNNERS, f"{RUNNERS} runners", 600)
            for number in range(ROUNDS):
                owner, other = controllers[number % 2], controllers[(number + 1) % 2]
                lists, calls, busy, kept = measured(owner, other)
                outcome = "ok" if max(lists, calls) <= MOST_SECONDS else "TOO SLOW"
                print(
                    f"takeover  {RUNNERS} runners  lists after {lists:.1f} s, calls after {calls:.1f} s (lease "
                    f"{TTL_SECONDS:g} s; goal <= {MOST_SECONDS:g})  {busy:.1f} s of CPU  "
                    f"{kept} of {QUEUED} queued requests completed  "
                    f"load {os.getloadavg()[0]:.0f}  {outcome}",
                    flush=True,
                )
                controllers[number % 2] = begin(root, owner.state_dir.name, url)
        finally:
            for controller in controllers:
                if controller.process.poll() is None:
                    controller.process.kill()
                    controller.process.wait()
            node.kill()
            node.wait()
            node.stdout.close()


def ready(controller: Controller) -> int:
    """Return how many runners can be called."""
    found = json.loads(controller.fal("runners", "list", "--state", "idle", "--json").stdout)["runners"]
    return len(found)


if __name__ == "__main__":
    main()
