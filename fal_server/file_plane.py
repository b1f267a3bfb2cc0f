"""The part of the composition root that has to do with files: /data, apps' files, public files, and tokens."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import BaseRoute

from fal_server.core.accounts import Account
from fal_server.http.fetching import UrlFetcher
from fal_server.http.files import AppFilePages, FilePages
from fal_server.http.guard import Guard
from fal_server.ports import Clock, Store
from fal_server.services.access import Access
from fal_server.services.files import AppFiles, Files
from fal_server.services.tokens import Tokens
from fal_server.state import StateDir
from fal_server.store.app_files import DiskAppFiles
from fal_server.store.data_directory import DataDirectory
from fal_server.store.drafts import DiskDrafts


class FilePlane:
    """Everything about files, on one state directory.

    Args:
        master_key: what tokens are derived from.
        lives: whether a runner with this id has not ended.

    Raises:
        Unavailable: a directory cannot be made.
    """

    def __init__(
        self, state: StateDir, store: Store, clock: Clock, master_key: bytes, lives: Callable[[str], bool]
    ) -> None:
        self._clock = clock
        self._drafts = DiskDrafts(state.incoming)
        self.data = DataDirectory(state.data)
        self.app_files = DiskAppFiles(state.app_files)
        self.tokens = Tokens(master_key, store, clock, lives)

    def variables(self) -> dict[str, str]:
        """What runners are told."""
        return {"FAL_DATA_DIR": str(self.data.directory)}

    def routes(self, access: Access, account: Account) -> list[BaseRoute]:
        """The paths of REST."""
        guard = Guard(access, self.tokens)
        return [
            *AppFilePages(AppFiles(self.app_files, self._drafts, self._clock), guard).routes,
            *FilePages(Files(self.data, UrlFetcher(), self._clock), guard).routes,
        ]
