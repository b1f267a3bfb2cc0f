"""A real controller in its own process. It is for tests of the whole product."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ending import ends_with_us

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PROGRAM = ("-m", "fal_server")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to an HTTP call."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


@dataclass
class Controller:
    """A running controller and how to reach it."""

    state_dir: Path
    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    key: str = field(repr=False)

    @property
    def host(self) -> str:
        """The address of gRPC and HTTP."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """A client's environment: this controller, and nothing of the machine's user."""
        home = self.state_dir / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(home),
            "FAL_CONFIG_PATH": str(home / "config.toml"),
            "FAL_STATE_DIR": str(self.state_dir),
            "FAL_GRPC_HOST": self.host,
            "FAL_KEY": self.key,
            "COLUMNS": "200",
            "LANG": "C.UTF-8",
        }

    def fal(
        self, *arguments: str, stdin: bytes = b"", check: bool = True, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run the `fal` command against this controller. The timeout only guards against hanging."""
        done = subprocess.run(
            [str(BIN / "fal"), *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        result = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"fal {' '.join(arguments)} exited {done.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    def call(
        self,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Answer:
        """Send an HTTP request: JSON POST if there is a body, else GET."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.host}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("Authorization", f"Key {key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(status=response.status, body=response.read(), headers=dict(response.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(status=error.code, body=error.read(), headers=dict(error.headers))

    def stop(self, timeout: float = 60) -> int:
        """Stop it; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def start(
    state_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    ulimit: str = "",
    webhook_allow: str = "127.0.0.0/8",
    isolation: str = "view",
    program: Sequence[str] = PROGRAM,
) -> Controller:
    """Start a controller on a state directory, and wait until it answers.

    If nobody stops it, it stops with its runners when the tests end.

    Args:
        webhook_allow: the private addresses that its webhooks may call; "" for a release without the option.
        isolation: the level of its runners. Apps of tests write to the test's folder, which no sandbox has;
            "" takes the default, as does a release without levels.
        program: the program that Python runs.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))}
    kept.setdefault("UV_CACHE_DIR", str(ROOT / ".cache" / "uv"))
    with (state_dir / "controller.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *ends_with_us(signal.SIGTERM),
                *(["/bin/sh", "-c", f'ulimit {ulimit}; exec "$@"', "sh"] if ulimit else []),
                *(sys.executable, *program, "--state-dir", str(state_dir)),
                *("--ready-fd", str(writing), "--drain-seconds", "10"),
                *(("--webhook-allow", webhook_allow) if webhook_allow else ()),
                *(("--isolation", isolation) if isolation else ()),
                *arguments,
            ],
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**kept, **(environment or {})},
        )
    os.close(writing)
    with os.fdopen(reading) as ready:
        line = ready.readline()
    if not line:
        process.wait()
        raise AssertionError(f"the controller did not start:\n{(state_dir / 'controller.log').read_text()[-4000:]}")
    message = json.loads(line)
    key = (state_dir / "admin.key").read_text().strip()
    return Controller(
        state_dir=state_dir, process=process, port=message["port"], grpc_port=message["grpc_port"], key=key
    )


@contextmanager
def running(state_dir: Path, *arguments: str, isolation: str = "view") -> Generator[Controller]:
    """Run a controller for the duration of a block; see `start`."""
    controller = start(state_dir, *arguments, isolation=isolation)
    try:
        yield controller
    finally:
        if controller.process.poll() is None:
            controller.stop()
