"""How long the first caller of an app waits that has no runner: a whole controller, an app at zero, one request."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

_ROUNDS = 7
_RAW = """
import socket, sys, threading, time, urllib.request
import uvicorn
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{listening.getsockname()[1]}/").read())
"""
_FASTAPI = _RAW.replace("import uvicorn\n", "import uvicorn, fastapi, pydantic, cloudpickle, msgpack\n")


class _Controller:
    """A controller in a process and directory of its own."""

    def __init__(self, state: Path) -> None:
        reading, writing = os.pipe()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._environment = environment
        with (state / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fal_server", "--state-dir", str(state), "--ready-fd", str(writing)],
                pass_fds=(writing,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        os.close(writing)
        with os.fdopen(reading) as ready:
            told = json.loads(ready.readline())
        self.address = f"127.0.0.1:{told['port']}"
        self._environment |= {
            "FAL_GRPC_HOST": self.address,
            "FAL_KEY": (state / "admin.key").read_text().strip(),
            "HOME": str(state),
        }

    def fal(self, *arguments: str) -> str:
        """Run a command."""
        command = [sys.executable, "-m", "fal_cli", *arguments]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True).stdout

    def first_byte(self, app: str) -> float:
        """Seconds from the request to the first byte of its answer."""
        request = urllib.request.Request(f"http://{self.address}/local/{app}", b'{"name": "Ada"}')
        request.add_header("Content-Type", "application/json")
        begin = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read(1)
        return time.perf_counter() - begin

    def end_runner(self) -> None:
        """Kill what runs, and wait until it is gone and the controller is at rest."""
        for runner in json.loads(self.fal("runners", "list", "--json"))["runners"]:
            self.fal("runners", "kill", runner["runner_id"])
        while json.loads(self.fal("runners", "list", "--json"))["runners"]:
            time.sleep(0.05)
        time.sleep(3)

    def close(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def _process(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    hello = Path(__file__).parents[1] / "examples" / "hello.py"
    with tempfile.TemporaryDirectory() as folder:
        controller = _Controller(Path(folder))
        try:
            controller.fal("deploy", str(hello), "--app-name", "cold", "--auth", "public")
            times: list[float] = []
            raw: list[float] = []
            libraries: list[float] = []
            for _ in range(_ROUNDS):
                times.append(controller.first_byte("cold"))
                controller.end_runner()
                raw.append(_process(_RAW))
                libraries.append(_process(_FASTAPI))
        finally:
            controller.close()
    base, loaded = statistics.median(raw), statistics.median(libraries)
    warm = statistics.median(times[1:])
    print(f"python -c, raw ASGI under uvicorn, one request    {base * 1000:7.0f} ms")
    print(f"the same, with FastAPI and cloudpickle imported   {loaded * 1000:7.0f} ms")
    for name, took, target in (("first start after the build", times[0], 500), ("later starts, median", warm, 60)):
        print(f"{name:50}{took * 1000:7.0f} ms  (to beat: {target})")
    print(f"later starts, of python with FastAPI: {warm / loaded:.2f}; of raw: {warm / base:.2f}")


if __name__ == "__main__":
    main()
