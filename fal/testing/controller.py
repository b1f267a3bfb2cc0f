"""A controller in a temporary folder, for tests and for `fal dev`."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from fal.deploy.errors import MissingExtraError
from fal.extras import CONTROLLER, missing
from fal_grpc.errors import FalError

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_LOG_LINES = 15


class ControllerStartError(FalError):
    """The controller did not start. The message has the end of its log."""


class TemporaryController:
    """A controller in its own folder, on free ports of this machine.

    Closing it stops its runners and removes the folder; this also happens if this process is killed. Use it in a `with`
    block, or call `start` and `close`.

    Args:
        options: options of `fal up`, such as "--gpu", "GPU-H100=1".

    Attributes:
        host: the address of gRPC and HTTP, as host:port.
        key: the administrator's key.
        state_dir: its folder.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._alive: int | None = None
        self._folder: Path | None = None
        self.host = ""
        self.key = ""
        self.state_dir = Path()

    def start(self) -> Self:
        """Start the controller, and wait until it answers.

        Raises:
            MissingExtraError: the extra `controller` is not installed here.
            ControllerStartError: it did not start.
        """
        lacking = missing(CONTROLLER)
        if lacking:
            raise MissingExtraError(
                f"a controller here needs the controller extra ({lacking[0]} is missing): "
                "pip install 'fal-grpc[controller]'"
            )
        self.state_dir = self._folder = Path(tempfile.mkdtemp(prefix="fal-"))
        try:
            with os.fdopen(self._launch()) as announcement:
                answered = select.select([announcement], [], [], _START_SECONDS)[0]
                line = announcement.readline() if answered else ""
            if not line:
                raise ControllerStartError(f"the controller did not start. Its log ends with:\n{self.log()}")
            self.host = f"127.0.0.1:{json.loads(line)['port']}"
            self.key = (self.state_dir / "admin.key").read_text().strip()
        except BaseException:
            self.close()
            raise
        return self

    def _launch(self) -> int:
        """Start the process, and return a descriptor. On it, the process reports that it answers."""
        ready, announced = os.pipe()
        watched, self._alive = os.pipe()
        try:
            with (self.state_dir / "controller.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "fal_server", "--state-dir", str(self.state_dir)),
                        *("--port", "0", "--drain-seconds", "1"),
                        *("--ready-fd", str(announced), "--while-fd", str(watched), "--temporary"),
                        *self._options,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    start_new_session=True,  # a Ctrl-C here must not reach it
                    pass_fds=(announced, watched),
                )
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(announced)
            os.close(watched)
        return ready

    def log(self) -> str:
        """Return the last lines of its log."""
        text = (self.state_dir / "controller.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-_LOG_LINES:])

    def close(self) -> None:
        """Stop the controller and its runners, and remove its folder. A second close does nothing."""
        process, self._process = self._process, None
        alive, self._alive = self._alive, None
        folder, self._folder = self._folder, None
        try:
            if process is not None:
                _end(process)
        finally:
            if alive is not None:
                os.close(alive)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Return this process's variables without those of clients. They include a cache that outlives the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))}
    caches = Path(kept.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept.setdefault("UV_CACHE_DIR", str(caches / "uv"))
    return kept
