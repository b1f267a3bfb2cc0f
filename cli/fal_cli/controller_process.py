"""Finds and stops the controller on this machine, by its state directory."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError
from fal_cli.options import path_type

if TYPE_CHECKING:
    from fal_cli.parser import FalParser

# A controller that listens on one of these is reachable under this machine's names.
_HERE = ("127.0.0.1", "localhost", "0.0.0.0", "::")  # noqa: S104  # compared with, not listened on

_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerProcess:
    """A running controller.

    Attributes:
        pid: its process id.
        started_ticks: its start time in clock ticks since boot; with the pid it identifies one process.
        port: the port of gRPC and HTTP.
        grpc_port: the port of gRPC alone, on 127.0.0.1.
        version: the controller's version.
        state_dir: the directory of its data.
        tls: whether `port` speaks TLS.
        local_authority: whether the CA in the state directory issued its certificate.
        stopping: what its shutdown waits for; empty while it serves.
        listens: the address that `port` is on.
        boot_id: the boot of the machine; None if the controller is too old to say.
        owner_socket: the socket on which the directory's owner needs no key; empty if the controller is too old for it.
        isolation: how strongly its runners are isolated, for people to read; empty if it is too old to say.
        few_files: a warning that it may open few files; empty if it may open enough, or is too old to say.
        shared: the directories of this machine that runners see; empty if it is too old to say.
        standby: for which owner of its database it waits, for people to read; empty if it is the owner.
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
    owner_socket: str = ""
    isolation: str = ""
    few_files: str = ""
    shared: tuple[str, ...] = ()
    standby: str = ""

    @property
    def option(self) -> str:
        """The option that names its state directory, with a leading space. It is "" for the default one."""
        return option_of(self.state_dir)

    @property
    def alive(self) -> bool:
        """Whether this process runs: pid, start time and boot agree."""
        return self.boot_id in (None, _boot_id()) and _started_ticks(self.pid) == self.started_ticks

    @property
    def host(self) -> str:
        """The address that clients on this machine use."""
        if self.listens not in _HERE:
            return f"[{self.listens}]:{self.port}" if ":" in self.listens else f"{self.listens}:{self.port}"
        return f"localhost:{self.port}" if self.tls else f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The same address with its scheme."""
        return f"{'https' if self.tls else 'http'}://{self.host}"

    @property
    def ca_file(self) -> Path | None:
        """The local CA that clients must trust, if there is one."""
        return self.state_dir / "tls" / "ca.pem" if self.tls and self.local_authority else None

    @property
    def bundle(self) -> Path:
        """The local CA together with the public ones."""
        return self.state_dir / "tls" / "bundle.pem"

    def uptime_seconds(self) -> float:
        """Return how long the controller has run, in seconds."""
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, since_boot - self.started_ticks / os.sysconf("SC_CLK_TCK"))

    def ask(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, seconds: float = _ANSWER_SECONDS
    ) -> dict[str, object]:
        """Call the owner's socket, which needs no key, and return the response.

        Args:
            body: sent as JSON.
            seconds: how long the controller may take.

        Raises:
            CommandError: the controller is too old, does not answer, or reports an error.
        """
        if self.standby:
            raise CommandError(
                f"the controller waits for its database, which {self.standby} has: run the command on that machine"
            )
        if not self.owner_socket:
            raise CommandError(f"the controller is of an earlier version ({self.version}): restart it")
        connection = _OwnerConnection(self.owner_socket, seconds)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            answer = connection.getresponse()
            found: object = json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as error:
            raise CommandError(f"the controller does not answer on {self.owner_socket}: {error}") from None
        finally:
            connection.close()
        content = found if isinstance(found, dict) else {}
        if answer.status != 200:  # OK
            raise CommandError(str(content.get("detail") or f"the controller answered {answer.status}"))
        return content

    def key(self) -> str:
        """Return the administrator's key, as `id:secret`.

        Raises:
            CommandError: the key cannot be read.
        """
        path = self.state_dir / "admin.key"
        try:
            text = path.read_text(errors="replace").strip()
        except OSError as error:
            raise CommandError(
                f"cannot read the controller's key: {path}: {error.strerror}. "
                f"`fal up --new-key{self.option}` makes another one"
            ) from None
        if not re.fullmatch(r"[0-9a-f-]+:[0-9a-f]+", text):
            raise CommandError(
                f"{path} holds no key: restart the controller (`fal down{self.option}`, `fal up -d{self.option}`), "
                "which repairs the file"
            )
        return text


class _OwnerConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def add_state_dir_option(parser: FalParser) -> None:
    """Add --state-dir, whose default is FAL_STATE_DIR."""
    parser.add_argument(
        "--state-dir",
        type=path_type,
        metavar="DIR",
        default=default_state_dir(),
        help="Where the controller keeps its data (defaults to FAL_STATE_DIR, else ~/.fal/controller).",
    )


def default_state_dir() -> Path:
    """Return FAL_STATE_DIR, or ~/.fal/controller."""
    return Path(os.environ.get("FAL_STATE_DIR") or "~/.fal/controller").expanduser()


def option_of(state_dir: Path) -> str:
    """Return the option that names a state directory, with a leading space. It is "" for the default one."""
    usual = state_dir.absolute() == default_state_dir().absolute()
    return "" if usual else f" --state-dir {shlex.quote(str(state_dir))}"


def find_controller(state_dir: Path) -> ControllerProcess | None:
    """Return the controller that runs on `state_dir`, or None.

    A damaged or copied file, or one left behind by an earlier boot, counts as no controller.

    Raises:
        CommandError: the controller's file may not be read.
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
            owner_socket=str(found.get("owner_socket") or ""),
            isolation=str(found.get("isolation") or ""),
            few_files=str(found.get("few_files") or ""),
            shared=tuple(map(str, found.get("shared") or ())),
            standby=str(found.get("standby") or ""),
        )
        inode = int(found.get("inode") or 0)
        if inode and inode != state_dir.stat().st_ino:
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    return controller if controller.alive else None


def require_controller(state_dir: Path) -> ControllerProcess:
    """Return the controller that runs on `state_dir`.

    Raises:
        CommandError: no controller runs there.
    """
    controller = find_controller(state_dir)
    if controller is None:
        raise CommandError(f"no controller runs on {state_dir}; `fal up -d{option_of(state_dir)}` starts one")
    return controller


def stop(
    controller: ControllerProcess,
    *,
    timeout_seconds: float,
    keep_runners: bool = False,
    at_once: bool = False,
    report: Callable[[str], None] | None = None,
) -> bool:
    """Ask the controller to stop, and wait for its process's end. It is not asked if it already stops.

    Args:
        controller: the controller.
        timeout_seconds: how long to wait at most.
        keep_runners: leave its runners for the next controller.
        at_once: do not wait for requests in flight.
        report: called with what the controller waits for, whenever that changes.

    Returns:
        Whether the process has ended.
    """
    try:
        handle = os.pidfd_open(controller.pid)
    except ProcessLookupError:
        return True
    try:
        # The handle refers to one process, so the process checked here is the one that gets the signal.
        if not controller.alive:
            return True
        number = signal.SIGUSR1 if keep_runners else signal.SIGTERM
        if not controller.stopping:
            signal.pidfd_send_signal(handle, number)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        end = time.monotonic() + timeout_seconds
        reported = ""
        while not poll.poll(max(0.0, min(end - time.monotonic(), _LOOK_SECONDS)) * 1000):
            known = find_controller(controller.state_dir)
            stopping = known.stopping if known is not None and known.pid == controller.pid else ""
            if stopping and at_once:
                # the second signal, after the controller has handled the first
                signal.pidfd_send_signal(handle, number)
                at_once = False
            if stopping and stopping != reported and report is not None:
                reported = stopping
                report(stopping)
            if time.monotonic() >= end:
                return False
        return True
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _boot_id() -> str:
    """Return the id of this boot. A pid and a start time identify a process of one boot only."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started_ticks(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat (see proc(5)). None if the process is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in field 2 may contain spaces and brackets; the last bracket ends it.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
