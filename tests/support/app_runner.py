"""Runners like the platform's, in an environment without `fal`.

A conftest imports the fixtures `runner_python`, `start` and `start_shared`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import httpx
import pytest

from fal.deploy.preparation import prepare
from fal.deploy.serving import serving_requirements
from fal.deploy.sources import METHOD
from fal_runner.worker import worker

LAUNCHER = """
import asyncio, importlib.util, inspect, sys

spec = importlib.util.spec_from_file_location("_fal_worker", sys.argv[3])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
function = worker.load({"path": sys.argv[1], "method": sys.argv[4]})
ports = {"exposed_port": 0, "exposed_metrics_port": int(sys.argv[2])}
parameters = inspect.signature(function).parameters
result = function(**{name: port for name, port in ports.items() if name in parameters})
if inspect.iscoroutine(result):
    result = asyncio.run(result)
print("RESULT", repr(result), flush=True)
"""


@pytest.fixture(scope="session")
def runner_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an environment with a deploy's packages and cloudpickle. Return its interpreter."""
    place = tmp_path_factory.mktemp("runner-env")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv is not None
    environment = {**os.environ, "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "copy"), "VIRTUAL_ENV": ""}
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place / "env"], check=True, env=environment)
    python = place / "env" / "bin" / "python"
    packages = [*serving_requirements(realtime=True), "cloudpickle"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True, env=environment)
    return python


class Runner:
    """A process that serves a definition, like the platform's worker."""

    def __init__(
        self, python: Path, definition: Path, method: str, directory: Path, environment: Mapping[str, str]
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.metrics_port: int = free.getsockname()[1]
        app_files = directory / "app"
        app_files.mkdir()
        launcher = directory / "launcher.py"
        launcher.write_text(LAUNCHER)
        self.process = subprocess.Popen(
            [python, "-P", launcher, definition, str(self.metrics_port), worker.__file__, method],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            start_new_session=True,
            env={
                "PATH": os.environ["PATH"],
                "IS_ISOLATE_AGENT": "1",
                "FAL_RUNNER_HOST": "127.0.0.1",
                "PYTHONUNBUFFERED": "1",
                "FAL_APP_DIR": str(app_files),
                **environment,
            },
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: Iterator[str], lines: list[str]) -> None:
        for line in pipe:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line with `pattern` on either stream; return it."""
        with self._changed:
            while True:
                for line in [*self.out, *self.err]:
                    if match := re.search(pattern, line):
                        return match
                assert self._open, f"no {pattern!r} in {self.out} {self.err}"
                assert self._changed.wait(timeout=30), f"no {pattern!r} for 30 s in {self.out} {self.err}"

    @property
    def url(self) -> str:
        """Wait until it serves; return its address."""
        return f"http://127.0.0.1:{self.wait_for(r'running on http://127.0.0.1:([0-9]+)')[1]}"

    def post(self, path: str, **options: object) -> httpx.Response:
        return httpx.post(self.url + path, **{"timeout": None, **options})

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; return its exit code. `out` and `err` contain its output then."""
        code = self.process.wait(timeout=30)
        for reader in self._readers:
            reader.join(timeout=30)
        return code

    def close(self) -> None:
        with suppress(ProcessLookupError):  # its forked children hold its pipes, too
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class Starter:
    """Starts runners, each in its own directory, and ends all of them."""

    def __init__(self, python: Path, place: Path) -> None:
        self._python = python
        self._place = place
        self._started: list[Runner] = []

    def __call__(
        self,
        source: str | Path,
        symbol: str | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        way: Literal["value", "source"] = "source",
    ) -> Runner:
        """Start a runner of an app, from source or a file. `way` is how the app is sent."""
        if isinstance(source, str):
            (self._place / "sample.py").write_text(source)
            source = self._place / "sample.py"
        code = prepare((str(source), symbol)).function
        assert code is not None
        definition, method = (code.bundle, METHOD) if way == "source" else (code.pickle(), "cloudpickle")
        directory = self._place / f"run{len(self._started)}"
        directory.mkdir()
        (directory / "definition").write_bytes(definition)
        runner = Runner(self._python, directory / "definition", method, directory, environment or {})
        self._started.append(runner)
        return runner

    def close(self) -> None:
        for runner in self._started:
            runner.close()


@pytest.fixture(scope="module")
def start_shared(runner_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Return a starter of runners. The tests of a module share them and do not stop them."""
    starter = Starter(runner_python, tmp_path_factory.mktemp("shared"))
    yield starter
    starter.close()


@pytest.fixture
def start(runner_python: Path, tmp_path: Path) -> Iterator[Starter]:
    """Return a starter of runners."""
    starter = Starter(runner_python, tmp_path)
    yield starter
    starter.close()
