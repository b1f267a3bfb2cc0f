"""A real Ray cluster on machines of a test; see tests/support/machines.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.controller import ROOT
from tests.support.ending import ends_with_us
from tests.support.machines import CONTROLLER, Machine
from tests.support.waiting import until

VENV = ROOT / ".cache" / "ray-venv"
PYTHON = VENV / "bin" / "python"
ADDRESS = f"{CONTROLLER}:6379"
# Ray gives its start up if a part of it, which imports Python for seconds, is not there within 15 s: on a busy machine
# that takes precedence, where that is allowed, and some tries. A lost machine is noticed in seconds.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 3,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "40",
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
# Each machine has its own directory of Ray, below a path that is short enough for sockets.
_ALONE = 'mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && exec "$@"'
_TRIES = 10
_STARTED = "Ray runtime started"


class RayProcess:
    """The processes of Ray on one machine. What started them waits for their end."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self.process = self._start()

    def wait(self) -> None:
        """Wait until Ray runs. Start it again if it gives up, as a service manager does."""
        for _ in range(_TRIES):
            until(lambda: _STARTED in self._log.read_text() or self.process.poll() is not None, "the start of Ray", 300)
            if self.process.poll() is None:
                return
            self.process = self._start()
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        """End it at once; what it started ends with its machine."""
        self.process.kill()
        self.process.wait(60)

    def end(self) -> None:
        """End it, as a machine's service manager does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as output:
            return subprocess.Popen(
                [*ends_with_us(signal.SIGTERM), "/usr/bin/env", *self._command],
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def start_head(log: Path) -> RayProcess:
    """Start the head on the controller's machine, which offers nothing."""
    words = ["--head", "--port", "6379", "--include-dashboard", "false", "--disable-usage-stats", "--no-monitor"]
    return RayProcess(_command(CONTROLLER, *words, resources={}), log)


def start_worker(machine: Machine, resources: Mapping[str, float], log: Path) -> RayProcess:
    """Start a node of Ray on a machine."""
    command = _command(machine.address, "--address", ADDRESS, resources=resources)
    return RayProcess([*machine.entering(), *command], log)


def _command(address: str, *words: str, resources: Mapping[str, float]) -> list[str]:
    return [
        *("sh", "-c", _ALONE, "sh", "nice", "-n", "-15", str(VENV / "bin" / "ray"), "start", "--block", *words),
        *("--node-ip-address", address, "--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", "80000000"),
        *("--include-log-monitor", "false"),
        # With ports of its own Ray waits for fewer of those that its parts choose.
        *("--metrics-export-port", "7001", "--dashboard-agent-grpc-port", "7002"),
        *("--dashboard-agent-listen-port", "7003", "--runtime-env-agent-port", "7004"),
        *("--resources", json.dumps(resources)),
    ]
