"""The first key. It is in a file of the state directory that only its owner can read."""

from __future__ import annotations

import logging

from fal_server.composition.state import StateDir, write_private
from fal_server.core.faults import Unavailable
from fal_server.services.keys import Keys

log = logging.getLogger(__name__)
FIRST_KEY = "made by the first start of this controller"
RENEWED_KEY = "made by fal up --new-key"


async def ensure_admin_key(state: StateDir, keys: Keys, *, renew: bool = False) -> None:
    """Write the first key to its file, and replace a damaged file.

    Args:
        renew: replace it in any case. Anyone who may start a controller here owns everything in it.

    Raises:
        Unavailable: the file cannot be read or written.
    """
    path = state.admin_key
    if renew:
        key_id, secret = await keys.create(None, alias=RENEWED_KEY)
        write_private(path, f"{key_id}:{secret}\n")
        log.warning("%s holds another administrator's key (%s): --new-key asked for it", path, key_id)
        return
    try:
        written = path.read_text(errors="replace")
    except FileNotFoundError:
        written = None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    text = await keys.replacement_for(written, FIRST_KEY)
    if text is not None:
        if written is not None:
            log.warning("%s held no key of this controller: it now holds another one", path)
        write_private(path, f"{text}\n")
