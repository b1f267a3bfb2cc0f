"""The controller on this machine, seen from outside: its state directory, its process, and its administrator's key."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError

if TYPE_CHECKING:
    from fal_cli.parser import FalParser

# What listens on one of these is reached by the names of this machine.
_HERE = ("127.0.0.1", "localhost", "0.0.0.0", "::")  # noqa: S104  # compared with, not listened on

_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerProcess:
    """A running controller.

    Attributes:
        pid: its process.
        started_ticks: when the process started, in clock ticks since boot; with the pid it names one process of a boot.
        port: where gRPC and HTTP are answered, on 127.0.0.1.
        grpc_port: where gRPC alone is.
        version: of the controller.
        state_dir: where its data is.
        tls: whether `port` speaks TLS.
        local_authority: whether its certificate is by the authority in the state directory.
        stopping: what its stop waits for; empty while it serves.
        listens: the address that `port` is on.
        boot_id: which boot of the machine that was; None where the controller is of a version that did not tell.
    """

    pid: int
    started_ticks: int
    port: int
    grpc_port: int
    version: str
    state_dir: Path
    tls: bool = False
    local_authority: bool = False
    stopping: str = ""
    listens: str = "127.0.0.1"
    boot_id: str | None = None

    @property
    def alive(self) -> bool:
        """Whether that very process runs: pid, start time and boot agree."""
        return self.boot_id in (None, _boot_id()) and _started_ticks(self.pid) == self.started_ticks

    @property
    def host(self) -> str:
        """The address that clients on this machine use."""
        if self.listens not in _HERE:
            return f"[{self.listens}]:{self.port}" if ":" in self.listens else f"{self.listens}:{self.port}"
        return f"localhost:{self.port}" if self.tls else f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The same with its scheme."""
        return f"{'https' if self.tls else 'http'}://{self.host}"

    @property
    def ca_file(self) -> Path | None:
        """The local authority that clients must trust; None where there is none."""
        return self.state_dir / "tls" / "ca.pem" if self.tls and self.local_authority else None

    @property
    def bundle(self) -> Path:
        """The same together with the public authorities."""
        return self.state_dir / "tls" / "bundle.pem"

    def uptime_seconds(self) -> float:
        """Return for how long it has run, in seconds."""
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, since_boot - self.started_ticks / os.sysconf("SC_CLK_TCK"))

    def key(self) -> str:
        """Return the administrator's key, as `id:secret`.

        Raises:
            CommandError: it cannot be read.
        """
        path = self.state_dir / "admin.key"
        try:
            text = path.read_text(errors="replace").strip()
        except OSError as error:
            raise CommandError(f"cannot read the controller's key: {path}: {error.strerror}") from None
        if not re.fullmatch(r"[0-9a-f-]+:[0-9a-f]+", text):
            raise CommandError(
                f"{path} holds no key: start the controller again (`fal down`, `fal up`), which mends it"
            )
        return text


def add_state_dir_option(parser: FalParser) -> None:
    """Add --state-dir, which FAL_STATE_DIR stands in for."""
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        default=default_state_dir(),
        help="Where the controller keeps its data (defaults to FAL_STATE_DIR, else ~/.fal/controller).",
    )


def default_state_dir() -> Path:
    """Return FAL_STATE_DIR, or ~/.fal/controller."""
    return Path(os.environ.get("FAL_STATE_DIR") or "~/.fal/controller").expanduser()


def find_controller(state_dir: Path) -> ControllerProcess | None:
    """Return the controller that runs on `state_dir`, or None.

    What a machine that went down left behind, or a disk that broke, is no controller, however it looks.

    Raises:
        CommandError: what it has written about itself may not be read.
    """
    path = state_dir / "controller.json"
    try:
        found = json.loads(path.read_text())
        controller = ControllerProcess(
            pid=int(found["pid"]),
            started_ticks=int(found["started_ticks"]),
            port=int(found["port"]),
            grpc_port=int(found["grpc_port"]),
            version=str(found["version"]),
            state_dir=state_dir,
            tls=found.get("tls") is True,
            local_authority=found.get("local_authority") is True,
            stopping=str(found.get("stopping") or ""),
            listens=str(found.get("host") or "127.0.0.1"),
            boot_id=str(found["boot_id"]) if found.get("boot_id") else None,
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    return controller if controller.alive else None


def require_controller(state_dir: Path) -> ControllerProcess:
    """Return the controller that runs on `state_dir`.

    Raises:
        CommandError: none does.
    """
    controller = find_controller(state_dir)
    if controller is None:
        raise CommandError(f"no controller runs on {state_dir}; `fal up -d` starts one")
    return controller


def stop(
    controller: ControllerProcess,
    *,
    timeout_seconds: float,
    keep_runners: bool = False,
    at_once: bool = False,
    tell: Callable[[str], None] | None = None,
) -> bool:
    """Ask the controller to stop, unless it is stopping already, and wait until its process is gone.

    Args:
        controller: which.
        timeout_seconds: how long to wait, at most.
        keep_runners: its runners go on, for the next controller.
        at_once: it is not to wait for what is under way.
        tell: is told what the controller waits for, each time that it changes.

    Returns:
        Whether it is gone.
    """
    try:
        handle = os.pidfd_open(controller.pid)
    except ProcessLookupError:
        return True
    try:
        # The handle holds on to one process, so that what is checked here is what gets the signal.
        if not controller.alive:
            return True
        number = signal.SIGUSR1 if keep_runners else signal.SIGTERM
        if not controller.stopping:
            signal.pidfd_send_signal(handle, number)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        end = time.monotonic() + timeout_seconds
        told = ""
        while not poll.poll(max(0.0, min(end - time.monotonic(), _LOOK_SECONDS)) * 1000):
            known = find_controller(controller.state_dir)
            stopping = known.stopping if known is not None and known.pid == controller.pid else ""
            if stopping and at_once:
                signal.pidfd_send_signal(handle, number)  # a second one, now that the first has been heard
                at_once = False
            if stopping and stopping != told and tell is not None:
                told = stopping
                tell(stopping)
            if time.monotonic() >= end:
                return False
        return True
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _boot_id() -> str:
    """Return which boot of the machine this is: numbers and start times of another one are other processes'."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started_ticks(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat (see proc(5)); None where there is no such process, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in field 2 may hold spaces and brackets; the last bracket ends it.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
