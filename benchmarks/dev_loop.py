"""Measure `fal dev`, from saving a file to the new code's answer.

The same run measures the endpoint under `uvicorn --reload`, and the app without a controller, from the start of Python
to the first answer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

_ROUNDS = 15
_PAUSE_SECONDS = 4.0
"""Few save more often; a waiting worker is there again a second after the last answer."""
_APP = """
import fal
from dev_loop_helper import VALUE


class Loop(fal.App, name="dev-loop"):
    @fal.endpoint("/")
    def answer(self) -> dict[str, int]:
        return {"value": VALUE}
"""
_BARE = """
from dev_loop_helper import VALUE
from fastapi import FastAPI

app = FastAPI()


@app.post("/")
def answer() -> dict[str, int]:
    return {"value": VALUE}
"""
_PLAIN = """
import threading, time, urllib.request, socket
import uvicorn
from app import Loop
from fal.app.api import build_api
listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(build_api(Loop(_allow_init=True)), log_level="error"))
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
print(urllib.request.urlopen(urllib.request.Request(url, b"{}")).read())
"""


def _value(url: str) -> int:
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: int = json.loads(answer.read())["value"]
    return found


def _save(directory: Path, value: int) -> float:
    helper = directory / "dev_loop_helper.py"
    helper.write_text(f"VALUE = {value}\n")
    return time.perf_counter()


def _served(directory: Path) -> list[float]:
    """Return the seconds from each save to the answer of `fal dev`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))}
    environment |= {"HOME": str(directory), "FAL_STATE_DIR": str(directory / "none")}
    with (directory / "shown").open("w") as shown:
        command = [sys.executable, "-m", "fal_cli", "dev", "app.py"]
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=shown, stderr=shown)
    try:
        while not (found := re.search(r"curl (\S+)", (directory / "shown").read_text())):
            if process.poll() is not None:
                raise RuntimeError((directory / "shown").read_text())
            time.sleep(0.1)  # its output is a file, which gives no notice of new lines
        url, took = found.group(1), []
        for value in range(1, _ROUNDS + 1):
            time.sleep(_PAUSE_SECONDS)  # an author pauses between two saves
            start = _save(directory, value)
            while _value(url) != value:
                time.sleep(0.01)  # calls without a pause would use the processor that is measured
            took.append(time.perf_counter() - start)
        return took
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _reloaded(directory: Path) -> list[float]:
    """Return the seconds from each save to the answer of `uvicorn --reload`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "bare:app", "--reload", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, took = f"http://127.0.0.1:{port}/", []
    try:
        for value in range(_ROUNDS + 1):
            start = _save(directory, value)
            while _value_or_none(url) != value:
                time.sleep(0.01)  # as above
            took.append(time.perf_counter() - start)
            time.sleep(_PAUSE_SECONDS)  # as above
        return took[1:]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _value_or_none(url: str) -> int | None:
    """Return the value. It is None while the process is replaced and the port closed."""
    try:
        return _value(url)
    except OSError:
        return None


def _alone(directory: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", _PLAIN], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "app.py").write_text(_APP)
        _save(directory, 0)
        (directory / "bare.py").write_text(_BARE)
        served = _served(directory)
        reloaded = _reloaded(directory)
        alone = [_alone(directory) for _ in range(5)]
    print(f"{'median, least in ms':52}{'':8}to beat")
    for name, took, target in (
        ("save to the new answer, fal dev", served, "300"),
        ("save to the new answer, uvicorn --reload", reloaded, ""),
        ("python to the first answer, without a controller", alone, ""),
    ):
        print(f"{name:52}{statistics.median(took) * 1000:7.0f}{min(took) * 1000:6.0f}   {target}")
    print(f"of python alone {statistics.median(served) / statistics.median(alone):.2f}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
