"""Keeps the modules that serve an environment's apps, for prewarmed workers.

Each app's bundle contains them. They are the same for all apps that one version of the client deploys.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

from fal_runner.worker.prewarm import RUNTIME_NAME, RUNTIME_SUFFIX

log = logging.getLogger(__name__)
_MOST_BYTES = 16 * 1024 * 1024
"""A hundred times what our clients bring; the account's file decides what comes out of it."""


def keep_runtime(bundle: Path, imports_file: Path) -> None:
    """Keep the bundle's archive of modules beside the list of imports. Write it only if it differs from the last one.

    Args:
        bundle: the code of an app; other code than a bundle has no archive.
        imports_file: lists what the environment's runners import.
    """
    kept = imports_file.with_name(imports_file.name + RUNTIME_SUFFIX)
    draft = kept.with_name(f"{kept.name}.draft")
    try:
        with zipfile.ZipFile(bundle) as archive:
            if archive.getinfo(RUNTIME_NAME).file_size > _MOST_BYTES:
                return
            content = archive.read(RUNTIME_NAME)  # which never reads more than that
        if not kept.exists() or kept.read_bytes() != content:
            draft.write_bytes(content)
            draft.replace(kept)  # a worker may be reading the last one
    except (KeyError, zipfile.BadZipFile):
        return  # pickled by value, or by an earlier version
    except OSError as error:
        log.warning("workers start without the modules that serve apps: %s", error)
