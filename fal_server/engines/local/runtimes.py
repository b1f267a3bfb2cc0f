"""Keeps the modules that serve an environment's apps, for workers to import before they have a job.

They come in the bundle of each app, and are the same for all that one version of the client deploys.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

from fal_runner.worker.prewarm import RUNTIME_NAME, RUNTIME_SUFFIX

log = logging.getLogger(__name__)


def keep_runtime(bundle: Path, imports_file: Path) -> None:
    """Keep the archive of modules in a bundle beside the list of imports, if it is another than the last.

    Args:
        bundle: the code of an app; what is no bundle of modules has none.
        imports_file: lists what the runs of its environment import.
    """
    kept = imports_file.with_name(imports_file.name + RUNTIME_SUFFIX)
    draft = kept.with_name(f"{kept.name}.draft")
    try:
        with zipfile.ZipFile(bundle) as archive:
            content = archive.read(RUNTIME_NAME)
        if not kept.exists() or kept.read_bytes() != content:
            draft.write_bytes(content)
            draft.replace(kept)  # a worker may read the last one
    except (KeyError, zipfile.BadZipFile):
        return  # pickled by value, or of an earlier version
    except OSError as error:
        log.warning("workers start without the modules that serve apps: %s", error)
