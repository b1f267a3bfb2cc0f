"""The state directory: its paths, its lock, and its controller's announcement."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fal_server.core.faults import FailedPrecondition, Unavailable
from fal_server.core.identity import LOCAL, AccountId
from fal_server.store.files.durable import DRAFT_PREFIX, sync_directory, write_draft

# Code, and files that apps are deployed with or make: what another controller of the database needs, too.
CONTENT = ("blobs", "app-files", "objects")
CONTENT_LINK = "content"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The content of `controller.json` while a controller runs.

    Attributes:
        started_ticks: the process's start time since boot, in clock ticks, because pids are reused.
        boot_id: the boot that pid and start time refer to; empty if an earlier version wrote the file.
        port: HTTP and gRPC.
        grpc_port: gRPC alone.
        tls: whether `port` speaks TLS.
        local_authority: whether the CA in the state directory issued the certificate.
        inode: of the state directory; in a copy of the file it is another directory's.
        stopping: what the shutdown waits for; empty while the controller serves.
        owner_socket: the socket on which the directory's owner needs no key; empty if an earlier version wrote the
        file.
        isolation: how strongly its runners are isolated, for people to read.
        few_files: a warning that it may open few files; empty if it may open enough.
        shared: the directories of this machine that runners see, for people to read.
        standby: for which owner it waits, for people to read; empty if it is the owner itself.
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
    inode: int = 0
    owner_socket: str = ""
    isolation: str = ""
    few_files: str = ""
    shared: Sequence[str] = ()
    standby: str = ""


class StateDir:
    """The paths of one state directory, which is created with mode 0700.

    Args:
        content: where code and files are, if several controllers share them; None for the directory itself.

    Raises:
        Unavailable: a directory cannot be created or written, or code and files are in the other one.
    """

    def __init__(self, root: Path, content: Path | None = None) -> None:
        self._lock_status: os.stat_result | None = None
        self.root = root.expanduser().absolute()
        self.content = self.root if content is None else content.expanduser().absolute()
        try:
            for directory in (self.root, self.environments, self.runners, self.api_socket.parent):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise Unavailable(f"the state directory {self.root} cannot be used: {error.strerror}") from error
        if content is not None:
            self._share_content()
        try:
            self.blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the directory {self.content} cannot be used: {error.strerror}") from error

    def _share_content(self) -> None:
        """Remember where the content is, for a backup. Refuse to leave any in the state directory.

        Raises:
            Unavailable: there is some, or the directory cannot be used.
        """
        for name in CONTENT:
            if (left := self.root / name).is_dir() and any(left.iterdir()):
                raise Unavailable(
                    f"{left} has content from before --content-dir: stop all controllers and move {', '.join(CONTENT)} "
                    f"and accounts/*/app-files of {self.root} to {self.content}"
                )
        try:
            self.content.mkdir(mode=0o700, parents=True, exist_ok=True)
            link = self.root / CONTENT_LINK
            if not link.is_symlink() or link.readlink() != self.content:
                link.unlink(missing_ok=True)
                link.symlink_to(self.content)
        except OSError as error:
            raise Unavailable(f"the directory {self.content} cannot be used: {error.strerror}") from error

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "fal.db"

    @property
    def clock(self) -> Path:
        """The last reading of the controller's clock."""
        return self.root / "clock.json"

    @property
    def blobs(self) -> Path:
        """Pickled code, by content hash."""
        return self.content / "blobs"

    @property
    def environments(self) -> Path:
        """Built virtual environments."""
        return self.root / "environments"

    @property
    def containers(self) -> Path:
        """The settings with which this machine's container engine must be called."""
        return self.root / "containers"

    @property
    def cache(self) -> Path:
        """The cache of uv, unless UV_CACHE_DIR names another."""
        return self.root / "cache" / "uv"

    @property
    def runners(self) -> Path:
        """One directory for each live runner."""
        return self.root / "runners"

    @property
    def data(self) -> Path:
        """The directory that runners see as /data."""
        return self.root / "data"

    @property
    def app_files(self) -> Path:
        """Files deployed with apps, by hash."""
        return self.content / "app-files"

    def data_of(self, account: AccountId) -> Path:
        """The directory that runners of an account see as /data."""
        return self.data if account == LOCAL else self.account(account) / "data"

    def app_files_of(self, account: AccountId) -> Path:
        """Files deployed with an account's apps, by hash."""
        return self.app_files if account == LOCAL else self.content / "accounts" / account / "app-files"

    def account(self, account: AccountId) -> Path:
        """The directory of an account's own files. The first account, which is older than accounts, has none."""
        return self.root / "accounts" / account

    @property
    def objects(self) -> Path:
        """Files with a public address."""
        return self.content / "objects"

    @property
    def incoming(self) -> Path:
        """Files that are being received."""
        return self.content / "incoming"

    @property
    def tls(self) -> Path:
        """The local CA, and the certificate of this controller."""
        return self.root / "tls"

    @property
    def owner_socket(self) -> Path:
        """The socket on which the directory's owner needs no key."""
        return self.root / "owner.sock"

    @property
    def api_socket(self) -> Path:
        """The socket on which runners call the controller. It is alone in its directory, which is in every sandbox.

        A later controller creates another socket, and a runner with the directory finds it.
        """
        return self.root / "api" / "api.sock"

    @property
    def former_api_socket(self) -> Path:
        """The path where runners of an earlier version call the controller."""
        return self.root / "api.sock"

    @property
    def home(self) -> Path:
        """The HOME of the first account's runners. Those of others have theirs beside it."""
        return self.root / "home"

    @property
    def admin_key(self) -> Path:
        """The first key, `id:secret`, readable only by its owner. It is for `fal up` and `fal env`."""
        return self.root / "admin.key"

    @property
    def grpc_socket(self) -> Path:
        """The socket on which the listener reaches the gRPC server."""
        return self.root / "grpc.sock"

    @contextmanager
    def held(self) -> Generator[None]:
        """Lock the directory. Two controllers on one database would undo each other's work.

        Raises:
            FailedPrecondition: another controller holds the lock.
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
            self._lock_status = os.fstat(lock)
            for stale in self.root.glob(f"{DRAFT_PREFIX}*"):  # a controller was killed during the write
                stale.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)

    def trouble(self) -> str:
        """Return why the directory can no longer be used. It is "" while the directory is in its place."""
        held = self._lock_status
        try:
            found = (self.root / "controller.lock").stat()
        except OSError as error:
            return f"the state directory {self.root} is gone ({error.strerror})"
        if held is not None and (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
            return f"another state directory lies at {self.root}"
        return ""

    def announce(self, running: Running) -> None:
        """Write the controller's addresses."""
        write_private(self.root / "controller.json", json.dumps(asdict(running)) + "\n")

    def withdraw(self) -> None:
        """Remove the announcement."""
        (self.root / "controller.json").unlink(missing_ok=True)

    def running(self) -> Running | None:
        """Return the last announcement; its process may have ended."""
        try:
            return Running(**json.loads((self.root / "controller.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


def write_private(path: Path, text: str) -> None:
    """Replace a file (mode 0600) durably.

    Raises:
        Unavailable: the disk does not take it.
    """
    try:
        draft = write_draft(path.parent, text.encode())
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from error
