"""Files: /data, the files of apps, public files, and their tokens."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.tokens import Tokens
from fal_server.composition.addresses import Addresses
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.storage import Storage
from fal_server.core.accounts import EachAccount, KnownAccounts
from fal_server.core.faults import Unavailable
from fal_server.core.identity import AccountId
from fal_server.http.outbound.destinations import Destinations
from fal_server.http.outbound.fetching import UrlFetcher
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.uploader import UnixListener, Uploader
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock
from fal_server.services.files import AppFiles, Files
from fal_server.services.objects import Objects

_LONGEST_SOCKET = 100  # bytes; the kernel accepts 107


@dataclass(frozen=True, slots=True, kw_only=True)
class FileServices:
    """The use cases of files.

    Attributes:
        socket: the socket on which runners store files.
        variables: the variables that tell runners where /data and the socket are.
    """

    data: EachAccount[Files]
    app_files: EachAccount[AppFiles]
    objects: Objects
    tokens: Tokens
    socket: Path
    variables: Mapping[str, str]


def build_files(
    *, state: StateDir, settings: Settings, storage: Storage, fleet: Fleet, clock: Clock, accounts: KnownAccounts
) -> FileServices:
    """Build the use cases of files.

    Args:
        accounts: the accounts whose runners have keys, and their /data quotas.

    Raises:
        Unavailable: the socket's directory is not private to this user.
    """
    socket, fetcher = socket_path(state.api_socket), UrlFetcher(Destinations(settings.webhook_allow))
    return FileServices(
        data=EachAccount(
            lambda account: Files(storage.data.of(account), fetcher, clock, lambda: accounts.quotas(account).data_bytes)
        ),
        app_files=EachAccount(lambda account: AppFiles(storage.content.app_files.of(account), storage.staging, clock)),
        objects=Objects(storage.content.objects, storage.staging, clock, settings.file_life),
        tokens=Tokens(
            storage.master_key, storage.store, clock, lambda runner: _served(fleet.account_of(runner), accounts)
        ),
        socket=socket,
        variables=socket_variables(socket),
    )


def socket_variables(socket: Path) -> Mapping[str, str]:
    """Return the variables that tell runners where they store files."""
    return {"FAL_USE_LOCAL_UPLOADER": "1", "FAL_API_SOCKET": str(socket)}


def _served(account: AccountId | None, accounts: KnownAccounts) -> AccountId | None:
    return account if account is not None and accounts.serves(account) else None


async def listen_for_runners(
    *,
    files: FileServices,
    access: Authenticator,
    teams: Teams,
    recorder: Recorder,
    addresses: Addresses,
    former: Path,
    stack: AsyncExitStack,
) -> None:
    """Answer runners on the unix socket until the stack is closed.

    Args:
        former: the path where runners of an earlier version look for the socket.

    Raises:
        Unavailable: the socket cannot be created.
    """
    uploader = Uploader(files.objects, Guard(access, files.tokens, teams, recorder), addresses.url)
    listener = UnixListener(AsgiAdapter(uploader.app))
    try:
        await listener.start(files.socket)
    except OSError as error:
        raise Unavailable(f"{files.socket} cannot be listened on: {error.strerror}") from error
    stack.push_async_callback(listener.close, 1.0)
    await asyncio.to_thread(_keep_link, former, files.socket)


def _keep_link(former: Path, socket: Path) -> None:
    """Make the socket available at its former path, too.

    Raises:
        Unavailable: the link cannot be created.
    """
    try:
        former.unlink(missing_ok=True)
        former.symlink_to(socket)
    except OSError as error:
        raise Unavailable(f"{former} cannot be made: {error.strerror}") from error


def socket_path(wanted: Path) -> Path:
    """Return a path for a socket that the kernel accepts: `wanted`, or a short one if it is too long.

    Raises:
        Unavailable: the temporary folder's path is too long, too, or the short directory is not private to this user.
    """
    if len(os.fsencode(wanted)) <= _LONGEST_SOCKET:
        return wanted
    directory = _short_directory(wanted)
    if len(os.fsencode(directory / wanted.name)) > _LONGEST_SOCKET:
        raise Unavailable(
            f"a socket cannot have as long a path as {wanted}, nor one in {directory.parent}: choose a shorter state "
            "directory, or set TMPDIR to a shorter one"
        )
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Unavailable(f"the directory {directory} is not this user's alone: remove it")
    return directory / wanted.name


def remove_socket_directory(wanted: Path) -> None:
    """Remove the short directory of a closed socket, if it has one.

    Runners that go on see this directory, so it may only be removed if there are none.
    """
    directory = _short_directory(wanted)
    with suppress(OSError):  # it is not there, or somebody keeps something else in it
        (directory / wanted.name).unlink(missing_ok=True)
        directory.rmdir()


def _short_directory(wanted: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"fal-{os.getuid()}-{digest}"
