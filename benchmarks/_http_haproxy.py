"""Run HAProxy, if installed, as a reverse proxy. It is a baseline for the gateway."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

_CONFIGURATION = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend door
    bind 127.0.0.1:{port}
    default_backend app
backend app
    http-reuse always
    http-request replace-path /me/bench(.*) \\1
    server app 127.0.0.1:{app}
"""


def program() -> str | None:
    """Return the path of HAProxy; None if it is not installed."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def version() -> str:
    """Return its version, such as 2.6.12."""
    found = program()
    assert found is not None
    shown = subprocess.run([found, "-v"], stdout=subprocess.PIPE, check=True, text=True).stdout
    match = re.search(r"version ([\d.]+)", shown)
    return match[1] if match else ""


class HaProxy:
    """An HAProxy process with one thread."""

    def __init__(self, app_port: int) -> None:
        found = program()
        assert found is not None
        self._folder = TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        configuration = Path(self._folder.name) / "conf"
        configuration.write_text(_CONFIGURATION.format(app=app_port, port=self.port), encoding="ascii")
        self._process = subprocess.Popen([found, "-db", "-q", "-f", str(configuration)])
        while not self._answers():
            assert self._process.poll() is None, "HAProxy ended"
            time.sleep(0.02)  # it does not report that it listens

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def pids(self) -> list[int]:
        """Return the pid of its process."""
        return [self._process.pid]

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()
