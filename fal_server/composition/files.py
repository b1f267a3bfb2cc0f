"""The part of the composition root that has to do with files: /data, apps' files, public files, and tokens."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from starlette.routing import BaseRoute

from fal_server.access.authentication import Access
from fal_server.access.tokens import Tokens
from fal_server.composition.state import StateDir
from fal_server.core.accounts import Account
from fal_server.core.faults import Fault, Unavailable
from fal_server.http.outbound.fetching import UrlFetcher
from fal_server.http.routes.files import AppFileRoutes, FileRoutes
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.metrics import AccountRoutes, GpuCounter
from fal_server.http.routes.storage import StorageRoutes
from fal_server.http.routes.tokens import TokenRoutes
from fal_server.http.routes.uploader import UnixListener, Uploader
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.ports import Clock, Store
from fal_server.services.files import AppFiles, Files
from fal_server.services.objects import Objects
from fal_server.store.files.app_files import DiskAppFiles
from fal_server.store.files.data_directory import DataDirectory
from fal_server.store.files.objects import DiskObjects
from fal_server.store.files.uploads import StagingDirectory

log = logging.getLogger(__name__)
_SWEEP_SECONDS = 600.0
_LONGEST_SOCKET = 100  # bytes; the kernel takes 107


class FileServices:
    """Everything about files, on one state directory.

    Args:
        master_key: what tokens are derived from.
        lives: whether a runner with this id has not ended.
        life: how long public files are kept that come without a word about that; None keeps them.

    Raises:
        Unavailable: a directory cannot be made.
    """

    def __init__(
        self,
        state: StateDir,
        store: Store,
        clock: Clock,
        master_key: bytes,
        lives: Callable[[str], bool],
        life: timedelta | None,
    ) -> None:
        self._clock = clock
        self._drafts = StagingDirectory(state.incoming)
        self.data = DataDirectory(state.data)
        self.app_files = DiskAppFiles(state.app_files)
        self.tokens = Tokens(master_key, store, clock, lives)
        self._objects = Objects(DiskObjects(state.objects), self._drafts, clock, life)
        self._socket = _socket_path(state.api_socket)

    def variables(self) -> dict[str, str]:
        """What runners are told."""
        return {
            "FAL_DATA_DIR": str(self.data.directory),
            "FAL_USE_LOCAL_UPLOADER": "1",
            "FAL_API_SOCKET": str(self._socket),
        }

    async def listen(self, stack: AsyncExitStack, access: Access, base: Callable[[], str]) -> None:
        """Answer runners on the unix socket, until the stack is closed.

        Args:
            base: gives the address of the front door, with its scheme.

        Raises:
            Unavailable: the socket cannot be made.
        """
        uploader = Uploader(self._objects, Guard(access, self.tokens), base)
        door = UnixListener(AsgiAdapter(uploader.app))
        try:
            await door.start(self._socket)
        except OSError as error:
            raise Unavailable(f"{self._socket} cannot be listened on: {error.strerror}") from error
        stack.push_async_callback(door.close, 1.0)

    async def run(self, stopping: asyncio.Event) -> None:
        """Delete public files that have expired, now and then, until `stopping` is set."""
        while not stopping.is_set():
            try:
                deleted = await self._objects.forget()
                if deleted:
                    log.info("%d files had expired", deleted)
            except (Fault, OSError) as fault:
                log.warning("expired files could not be deleted, trying again later: %s", fault)
            try:
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                continue

    def routes(self, access: Access, account: Account, gpus: GpuCounter, base: Callable[[], str]) -> list[BaseRoute]:
        """The paths of REST; `base` gives the address of the front door, with its scheme."""
        guard = Guard(access, self.tokens)
        return [
            *StorageRoutes(self._objects, self.tokens, guard, base).routes,
            *TokenRoutes(self.tokens, guard).routes,
            *AccountRoutes(gpus, account, guard).routes,
            *AppFileRoutes(AppFiles(self.app_files, self._drafts, self._clock), guard).routes,
            *FileRoutes(Files(self.data, UrlFetcher(), self._clock), guard).routes,
        ]


def _socket_path(wanted: Path) -> Path:
    """A path for a socket that the kernel takes: `wanted`, or where that is too long, one in the temporary directory.

    Raises:
        Unavailable: the other directory is not ours alone.
    """
    if len(os.fsencode(wanted)) <= _LONGEST_SOCKET:
        return wanted
    word = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"fal-{os.getuid()}-{word}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Unavailable(f"the directory {directory} is not this user's alone: remove it")
    return directory / wanted.name
