"""A controller that a test may kill, and a runner for commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fal.api import SyncServerlessClient
from fal_grpc.controller import Controller as Wire
from fal_grpc.credentials import KeyCredentials
from fal_grpc.target import parse_target
from tests.support.controller import BIN, ROOT, Controller, start


@dataclass
class Place:
    """A controller that a test may kill. A runner survives it."""

    controller: Controller
    runner_id: str = ""

    def fal(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        return self.controller.fal(*arguments, stdin=stdin, check=False)

    def exec(self, *command: str, options: Sequence[str] = (), stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        return self.fal("runners", "exec", *options, self.runner_id, "--", *command, stdin=stdin)

    def popen(
        self, *command: str, options: Sequence[str] = (), stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(BIN / "fal"), "runners", "exec", *options, self.runner_id, "--", *command],
            env=self.controller.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def sdk(self) -> SyncServerlessClient:
        return SyncServerlessClient(host=self.controller.host, api_key=self.controller.key)

    def wire(self) -> Wire:
        return Wire(parse_target(self.controller.host), KeyCredentials(*self.controller.key.split(":")))

    def crash(self) -> None:
        """Kill the controller like a crash, and start another one."""
        self.controller.process.kill()
        self.controller.process.wait()
        self.controller = start(self.controller.state_dir, "--port", str(self.controller.port))


@contextmanager
def entered(state_dir: Path) -> Generator[Place]:
    """Run a controller with one permanent runner."""
    place = Place(start(state_dir))
    try:
        place.controller.fal("deploy", str(ROOT / "examples/hello.py"), "--app-name", "entered", "--auth", "public")
        assert place.controller.call("/local/entered", {"name": "x"}).status == 200
        (runner,) = json.loads(place.controller.fal("runners", "list", "--json").stdout)["runners"]
        place.runner_id = runner["runner_id"]
        place.controller.fal("apps", "scale", "entered", "--keep-alive", "3600")
        yield place
    finally:
        place.controller.stop()
