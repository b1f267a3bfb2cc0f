"""Run other servers of one endpoint, as baselines for ours.

They are installed below .cache, and run by an interpreter without this project's packages. Ray listens on all addresses
of its machine, so it has a network of its own, which has the loopback interface only.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks._packages import installed

_LITSERVE = """
import sys

import litserve


class Hello(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["name"]

    def predict(self, name):
        return "Hello, " + name

    def encode_response(self, output):
        return {"message": output}


if __name__ == "__main__":
    server = litserve.LitServer(Hello(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
"""
_BENTOML = """
import bentoml


@bentoml.service(workers=1)
class Hello:
    @bentoml.api
    async def predict(self, name: str) -> dict:
        return {"message": "Hello, " + name}
"""
_RAY_SERVE = """
import os
import signal
import sys

import ray
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

app = FastAPI()


class Name(BaseModel):
    name: str


@serve.deployment(num_replicas=1, max_ongoing_requests=1000)
@serve.ingress(app)
class Hello:
    @app.post("/predict")
    async def predict(self, given: Name) -> dict:
        return {"message": "Hello, " + given.name}


ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=os.environ["HOME"])
options = HTTPOptions(host="127.0.0.1", port=int(sys.argv[1]))
serve.start(http_options=options, logging_config=LoggingConfig(enable_access_log=False))
serve.run(Hello.bind(), logging_config=LoggingConfig(enable_access_log=False))
signal.pause()
"""
# Ray Serve tells its HAProxy of the app once more after the first answer, and connections are closed.
_SETTLING_SECONDS = 10
# Ends itself if the loopback interface cannot be raised.
_OWN_NETWORK = ("unshare", "--map-root-user", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh")


@dataclass(frozen=True)
class PeerServer:
    """A server of an endpoint that takes POST /predict.

    Attributes:
        program: its bench_peer.py.
        arguments: what the interpreter gets, before the port.
        environment: variables; `{folder}` stands for the server's folder.
        own_network: whether it listens in a network of its own.
    """

    name: str
    requirement: str
    program: str
    arguments: tuple[str, ...] = ("bench_peer.py",)
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    own_network: bool = False

    @property
    def label(self) -> str:
        """Return its name and version."""
        return self.name.replace("VERSION", self.requirement.partition("==")[2])

    def enter(self, pid: int) -> tuple[str, ...]:
        """Return the command that runs another in its network."""
        return ("nsenter", "--preserve-credentials", "--user", "--net", "-t", str(pid)) if self.own_network else ()


SERVERS = (
    PeerServer("LitServe VERSION", "litserve==0.2.19", _LITSERVE),
    PeerServer(
        "BentoML VERSION",
        "bentoml==1.4.40",
        _BENTOML,
        ("-m", "bentoml", "serve", "bench_peer:Hello", "--host", "127.0.0.1", "--port"),
        {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{folder}"},
    ),
    PeerServer(
        "Ray Serve VERSION with HAProxy",
        "ray[serve]==2.60.0",
        _RAY_SERVE,
        environment={
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": "{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "{folder}",
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "{folder}/server-state",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        own_network=True,
    ),
    PeerServer(
        "Ray Serve VERSION",
        "ray[serve]==2.60.0",
        _RAY_SERVE,
        environment={"RAY_USAGE_STATS_ENABLED": "0"},
        own_network=True,
    ),
)


@contextmanager
def serving(server: PeerServer, place: Path) -> Generator[tuple[int, int, float]]:
    """Run a server in a new folder.

    It yields the port, the process and the seconds to the first answer.

    Raises:
        RuntimeError: it ended, or did not answer within two minutes.
    """
    packages = installed(server.requirement.partition("==")[0].replace("[", "-").rstrip("]"), server.requirement)
    folder = place / str(SERVERS.index(server))  # short, because Ray has sockets below it
    folder.mkdir()
    (folder / "bench_peer.py").write_text(server.program)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    python = getattr(sys, "_base_executable", sys.executable)  # not ours, whose packages would mix with its own
    command = [*(_OWN_NETWORK if server.own_network else ()), python, *server.arguments, str(port)]
    own = {name: value.format(folder=folder) for name, value in server.environment.items()}
    own |= {"PYTHONPATH": str(packages), "HOME": str(folder)}
    began = time.monotonic()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={"PATH": os.environ["PATH"], **own}, stdout=output, stderr=output
        )
    try:
        _wait_for(server, process, port, folder / "output")
        took = time.monotonic() - began
        if server.own_network:
            time.sleep(_SETTLING_SECONDS)
        yield port, process.pid, took
    finally:
        if process.poll() is None:
            processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.terminate()
            _, left = psutil.wait_procs(processes, timeout=20)
            for one in left:
                one.kill()


def _wait_for(server: PeerServer, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    """Wait until a peer answers; none of them says so otherwise."""
    until = time.monotonic() + 120
    command = ["curl", "-sf", "-X", "POST", "-H", "Content-Type: application/json", "-d", '{"name": "Ada"}']
    address = f"http://127.0.0.1:{port}/predict"
    while subprocess.run(
        [*server.enter(process.pid), *command, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{server.label} does not answer: {output.read_text()[-2000:]}")
        time.sleep(0.05)
