"""The first key, in a file of the state directory that its owner alone reads."""

from __future__ import annotations

import logging

from fal_server.composition.state import StateDir, write_private
from fal_server.core.faults import Unavailable
from fal_server.services.keys import Keys

log = logging.getLogger(__name__)
FIRST_KEY = "made by the first start of this controller"


async def ensure_admin_key(state: StateDir, keys: Keys) -> None:
    """Write the first key to its file, and replace a file that is damaged.

    Raises:
        Unavailable: the file cannot be read or written.
    """
    path = state.admin_key
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
