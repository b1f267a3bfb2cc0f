"""Run nginx, if installed, as a reverse proxy. It is the gateway's baseline."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

_CONFIGURATION = """
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream app {{ server 127.0.0.1:{app}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location /me/bench/ {{
            proxy_pass http://app/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


def is_installed() -> bool:
    """Return whether nginx is installed."""
    return _program() is not None


def _program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Nginx:
    """An nginx process with one worker."""

    def __init__(self, app_port: int) -> None:
        program = _program()
        assert program is not None
        self._folder = TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        path = Path(self._folder.name)
        user = "user root;" if os.geteuid() == 0 else ""
        (path / "conf").write_text(
            _CONFIGURATION.format(user=user, folder=path, app=app_port, port=self.port), encoding="ascii"
        )
        command = [program, "-p", str(path), "-c", str(path / "conf"), "-g", "daemon off;"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not self._answers():
            assert self._process.poll() is None, (path / "error.log").read_text()
            time.sleep(0.02)  # nginx does not report that it listens

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def pids(self) -> list[int]:
        """Return the pids of the master and its worker."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *map(int, children.split())]

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()
