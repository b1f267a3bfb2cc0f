"""The controller's state directory: what is where, who holds it, and where its controller answers."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fal_server.core.faults import FailedPrecondition, Unavailable
from fal_server.store.files.durable import DRAFT_PREFIX, sync_directory, write_draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What `controller.json` says while a controller runs.

    Attributes:
        started_ticks: the process's start time since boot, in clock ticks: the pid alone could be another's by now.
        boot_id: the machine's boot, without which the two say nothing; empty in what an earlier version wrote.
        port: HTTP and gRPC.
        grpc_port: gRPC alone.
        tls: whether `port` speaks TLS.
        local_authority: whether its certificate is by the authority in the state directory.
        stopping: what its stop waits for; empty while it serves.
    """

    pid: int
    started_ticks: int
    host: str
    port: int
    grpc_port: int
    version: str
    tls: bool = False
    local_authority: bool = False
    stopping: str = ""
    boot_id: str = ""


class StateDir:
    """Names the parts of one state directory, made with mode 0700 where it is missing.

    Raises:
        Unavailable: it cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        try:
            for directory in (self.root, self.blobs, self.environments, self.runners):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise Unavailable(f"the state directory {self.root} cannot be used: {error.strerror}") from error

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "fal.db"

    @property
    def blobs(self) -> Path:
        """Code and app files, by content hash."""
        return self.root / "blobs"

    @property
    def environments(self) -> Path:
        """The virtual environments that were built."""
        return self.root / "environments"

    @property
    def cache(self) -> Path:
        """uv's cache, where UV_CACHE_DIR does not name another."""
        return self.root / "cache" / "uv"

    @property
    def runners(self) -> Path:
        """A directory for each runner that has not ended."""
        return self.root / "runners"

    @property
    def data(self) -> Path:
        """What runners see as /data."""
        return self.root / "data"

    @property
    def app_files(self) -> Path:
        """The files that are deployed with apps, by their hashes."""
        return self.root / "app-files"

    @property
    def objects(self) -> Path:
        """Files that are fetched by their address."""
        return self.root / "objects"

    @property
    def incoming(self) -> Path:
        """Files that are on their way in."""
        return self.root / "incoming"

    @property
    def tls(self) -> Path:
        """The local authority, and the certificate of this controller."""
        return self.root / "tls"

    @property
    def api_socket(self) -> Path:
        """Where runners reach what the platform does for them."""
        return self.root / "api.sock"

    @property
    def admin_key(self) -> Path:
        """The first key, `id:secret`, readable by its owner alone; for `fal up` and `fal env`."""
        return self.root / "admin.key"

    @property
    def grpc_socket(self) -> Path:
        """Where the front door reaches gRPC."""
        return self.root / "grpc.sock"

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the directory: two controllers on one database would undo each other's work.

        Raises:
            Precondition: another controller holds it.
        """
        lock = os.open(self.root / "controller.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                known = self.running()
                who = f" (pid {known.pid}, port {known.port})" if known else ""
                raise FailedPrecondition(
                    f"a controller{who} is already running on {self.root}: `fal status` shows it, `fal down` stops it, "
                    "and --state-dir chooses another directory"
                ) from None
            for left in self.root.glob(f"{DRAFT_PREFIX}*"):  # by a controller that was killed while it wrote
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)

    def announce(self, running: Running) -> None:
        """Say where the controller answers."""
        write_private(self.root / "controller.json", json.dumps(asdict(running)) + "\n")

    def withdraw(self) -> None:
        """The controller answers no more."""
        (self.root / "controller.json").unlink(missing_ok=True)

    def running(self) -> Running | None:
        """What was announced last; whether that process lives is for the reader to check."""
        try:
            return Running(**json.loads((self.root / "controller.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


def started_ticks() -> int:
    """This process's start time since boot in clock ticks: field 22 of /proc/self/stat."""
    return int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])


def boot_id() -> str:
    """Which boot of the machine this is: after another one, numbers and start times name other processes."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replace a file whole, mode 0600, durable when it returns.

    Raises:
        Unavailable: the disk does not take it.
    """
    try:
        draft = write_draft(path.parent, text.encode())
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from error
