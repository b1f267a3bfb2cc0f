"""The persistent data: the database, the vault and the content on disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fal_server.composition.content import StoredContent, check_content, open_content
from fal_server.composition.moved_content import move_content
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.core.accounts import EachAccount, KnownAccounts
from fal_server.core.faults import Unavailable
from fal_server.store.crypto.master_key import load_master_key
from fal_server.store.crypto.vault import AesVault
from fal_server.store.files.data_directory import DataDirectory
from fal_server.store.files.uploads import StagingDirectory
from fal_server.store.sql.opening import open_store
from fal_server.store.sql.store import SqlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The stores of one state directory.

    Attributes:
        content: code and files.
        data: each account's /data.
        staging: files that are being received.
    """

    master_key: bytes = field(repr=False)
    vault: AesVault
    store: SqlStore
    content: StoredContent
    data: EachAccount[DataDirectory]
    staging: StagingDirectory


async def open_storage(
    *,
    state: StateDir,
    settings: Settings,
    accounts: KnownAccounts,
    epoch: int | None,
    certain: Callable[[], bool],
    stack: AsyncExitStack,
) -> Storage:
    """Open every store; the stack closes the database.

    Args:
        accounts: gets the stored accounts.
        epoch: of this controller, if it holds the lease of a PostgreSQL database.
        certain: returns whether no other controller can have the database.

    Raises:
        Unavailable: the database, the master key, a directory or the bucket cannot be used, or the code and files of
            the database are elsewhere.
    """
    master_key = load_master_key(state.root, os.environ)
    vault = AesVault(master_key)
    if settings.database is None and not settings.new_database:
        _require_database(state)
    store = await open_store(settings.database or state.database, vault, epoch=epoch)
    stack.push_async_callback(store.close)
    for account in await store.accounts.all():
        accounts.add(account)
    content = await open_content(state, settings.content, lambda: [account.id for account in accounts.all()], certain)
    check = partial(check_content, state, settings.content, store.sealed, alone=epoch is None)
    if settings.content is None:
        await check(claim=True)
    else:
        await check()
        await move_content(state, content, [account.id for account in accounts.all()])
        # A bucket that was never reached is not where they are: nobody could start without it any more.
        if not await asyncio.to_thread(content.trouble):
            await check(claim=True)
    return Storage(
        master_key=master_key,
        vault=vault,
        store=store,
        content=content,
        data=EachAccount(lambda account: DataDirectory(state.data_of(account))),
        staging=StagingDirectory(state.incoming),
    )


def _require_database(state: StateDir) -> None:
    """Refuse a used directory without a database. Everything would seem to be lost.

    Raises:
        Unavailable: the database is missing or empty.
    """
    signs = [path for path in (state.admin_key, state.runners, state.blobs) if _is_used(path)]
    write_ahead_log = state.database.with_name(f"{state.database.name}-wal")
    if not signs or write_ahead_log.exists() or (state.database.exists() and state.database.stat().st_size):
        return
    what = "is empty" if state.database.exists() else "is missing"
    raise Unavailable(
        f"the database {state.database} {what}, though {signs[0].name} says that it was in use: put a backup back, "
        "give --database if it was on PostgreSQL, or start once with --new-database to begin without apps, keys and "
        "secrets"
    )


def _is_used(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()
