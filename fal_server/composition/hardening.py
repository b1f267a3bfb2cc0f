"""Keeps what the controller holds from others on the machine."""

from __future__ import annotations

import os
import resource

from fal_runner.isolation.confinement import set_dumpable

PRIVATE = 0o077


def harden() -> None:
    """Make files for their owner alone, leave no core dump, and let nobody but root look into this process.

    Programs that it starts get its umask and its limit of core dumps.
    """
    os.umask(PRIVATE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    set_dumpable(False)
