"""Secrets in a state directory. A controller needs them when it takes the database over."""

from __future__ import annotations

from pathlib import Path

from fal_server.composition.state import StateDir, write_private
from fal_server.store.sql.sealed import SealedSettings

_ADMIN_KEY = "administrators-key"
_AUTHORITY, _AUTHORITY_KEY = "local-authority", "local-authority-key"


class SharedSecrets:
    """The administrator's key, and the local authority of TLS. Clients go on to use both with the next controller.

    Args:
        sealed: the secrets in the database.
    """

    def __init__(self, sealed: SealedSettings) -> None:
        self._sealed = sealed

    async def restore(self, state: StateDir) -> None:
        """Write what the controller before left for this one.

        Raises:
            Unavailable: the database cannot be read, or the directory cannot be written.
        """
        if not state.admin_key.exists() and (key := await self._sealed.get(_ADMIN_KEY)) is not None:
            write_private(state.admin_key, key)
        for name, path in _authority(state):
            found = await self._sealed.get(name)
            if found is not None and (not path.exists() or path.read_text() != found):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_private(path, found)

    async def keep(self, state: StateDir) -> None:
        """Store what this controller has for the next one.

        Raises:
            Unavailable: the database cannot be written.
        """
        for name, path in ((_ADMIN_KEY, state.admin_key), *_authority(state)):
            if path.exists() and path.read_text() != await self._sealed.get(name):
                await self._sealed.put(name, path.read_text())


def _authority(state: StateDir) -> list[tuple[str, Path]]:
    return [(_AUTHORITY, state.tls / "ca.pem"), (_AUTHORITY_KEY, state.tls / "ca.key")]
