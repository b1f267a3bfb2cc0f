"""Protects the controller's data from other users of the machine."""

from __future__ import annotations

import os
import resource

from fal_runner.isolation.confinement import set_dumpable

PRIVATE = 0o077


def harden() -> None:
    """Create files for their owner alone. Disable core dumps, and let only root inspect this process.

    Child programs inherit its umask and its limit of core dumps.
    """
    os.umask(PRIVATE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    set_dumpable(False)
