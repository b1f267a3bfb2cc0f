"""Secrets in a state directory that the database's next controller needs. It needs them when it takes over."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from fal_server.composition.state import StateDir, write_private
from fal_server.core.faults import Unavailable
from fal_server.store.sql.sealed import SealedSettings

log = logging.getLogger(__name__)
_ADMIN_KEY = "administrators-key"
_AUTHORITY, _AUTHORITY_KEY = "local-authority", "local-authority-key"
_CONTENT = "content"


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


async def check_content(
    state: StateDir, url: str | None, sealed: SealedSettings, *, claim: bool = False, alone: bool = False
) -> None:
    """Check that code and files are where the database says.

    Args:
        url: of the bucket; None if they are in a directory.
        claim: make it that place, if there is none yet.
        alone: no other controller can have the database, so a place that is named counts.

    Raises:
        Unavailable: it is another one.
    """
    found = await sealed.get(_CONTENT)
    bucket = found if found is not None and "://" in found else None
    if url is None and bucket is not None:
        raise Unavailable(
            f"the code and files of this database are in {bucket}, and no bucket is named: start it with "
            f"--content {bucket}"
        )
    if url is not None:
        if found == url:
            return
        if alone and bucket is not None:
            log.warning("the code and files of this database were in %s until now: %s needs a copy", bucket, url)
        elif not alone and found is not None:
            raise Unavailable(
                f"{url} is not where the other controllers of this database have code and files: that is "
                f"{bucket or 'a directory'}. Give all of them the same --content or --content-dir"
            )
        if claim:
            await sealed.put(_CONTENT, url)
    elif not alone and state.content != state.root:
        await _check_directory(state, found, sealed, claim=claim)


async def _check_directory(state: StateDir, found: str | None, sealed: SealedSettings, *, claim: bool) -> None:
    path = state.content / "content-id"
    own = path.read_text().strip() if path.exists() else None
    if claim and found is None:
        found = own = own or secrets.token_hex(16)
        write_private(path, f"{own}\n")
        await sealed.put(_CONTENT, own)
    if found is not None and found != own:
        raise Unavailable(
            f"{state.content} is not the directory that the other controllers of this database share: give all of them "
            f"the same --content-dir. If it was moved here, move its file {path.name} with it"
        )


def _authority(state: StateDir) -> list[tuple[str, Path]]:
    return [(_AUTHORITY, state.tls / "ca.pem"), (_AUTHORITY_KEY, state.tls / "ca.key")]
