"""The authorities that calls to other hosts trust. They are the public ones, and those of this machine."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from pathlib import Path

from fal_server.core.authorities import SYSTEM_AUTHORITIES


def trusting_context(files: Sequence[Path] = SYSTEM_AUTHORITIES) -> ssl.SSLContext:
    """Return a context that trusts the public authorities and a file's. The file is the first of these that exists.

    A company's own authority is in that file, and a slim image has none. If it is damaged, the public ones remain.
    Loading takes a tenth of a second.
    """
    import certifi

    context = ssl.create_default_context(cafile=certifi.where())
    system = next((path for path in files if path.is_file()), None)
    if system is not None:
        with contextlib.suppress(OSError):
            context.load_verify_locations(cafile=system)
    return context
