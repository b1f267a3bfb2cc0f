"""A package server on loopback. It requires a password and can delay a download."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fal_runner.isolation.levels import Isolation
from fal_server.builders import BuildSandboxes, VirtualenvBuilder

SANDBOXES = BuildSandboxes(isolation=Isolation.PROCESS)
PASSWORD = "hunter2hunter2"
OPERATORS_OWN = {"FAL_MASTER_KEY": "not-for-uv", "UV_PUBLISH_TOKEN": "not-for-uv", "PIP_INDEX_URL": "not-for-uv"}
WHEEL = "fal_test_hello-1.0-py3-none-any.whl"


def make_wheel() -> bytes:
    """Create a wheel with a module and a command."""
    info = "fal_test_hello-1.0.dist-info"
    files = {
        "fal_test_hello.py": "def main():\n    print('hello from', __file__)\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: fal-test-hello\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nfal-test-hello = fal_test_hello:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@dataclass
class PackageServer:
    port: int
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    @property
    def requirement(self) -> str:
        return f"fal-test-hello @ http://someone:{PASSWORD}@127.0.0.1:{self.port}/{WHEEL}"

    async def wait_until_asked(self) -> None:
        assert await asyncio.to_thread(self.asked.wait, 60)


@pytest.fixture
def packages() -> Iterator[PackageServer]:
    expected = "Basic " + base64.b64encode(f"someone:{PASSWORD}".encode()).decode()
    wheel = make_wheel()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.headers.get("Authorization") == expected and self.path.endswith(WHEEL)
            server.asked.set()
            assert server.go_on.wait(60)
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(wheel) if found else 0))
            self.end_headers()
            if found and self.command == "GET":
                self.wfile.write(wheel)

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *args):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a killed installer hangs up

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server = PackageServer(http.server_address[1])
        server.go_on.set()
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield server
        server.go_on.set()
        http.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def environ() -> dict[str, str]:
    """Return the caller's variables. They have uv's cache in the project, and no proxy for loopback."""
    cache = os.environ.get("UV_CACHE_DIR", str(Path(__file__).parents[2] / ".cache" / "uv"))
    chosen = {name: value for name, value in os.environ.items() if name != "UV_LINK_MODE"}  # the Makefile sets it
    return {**chosen, "UV_CACHE_DIR": cache, "NO_PROXY": "127.0.0.1", **OPERATORS_OWN}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "environments"


@pytest.fixture
def builder(root: Path, tmp_path: Path, environ: dict[str, str]) -> VirtualenvBuilder:
    return VirtualenvBuilder(root, tmp_path / "unused-cache", SANDBOXES, environ)
