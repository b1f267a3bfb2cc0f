"""Puts a process into its runner's control groups. It does so before it runs any of the runner's code."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

GROUPS_VARIABLE = "FAL_CONTROL_GROUPS"
"""Names the groups' directories, separated by colons; the launched program does not get it."""


def enter(environment: MutableMapping[str, str]) -> None:
    """Enter the groups that the environment names, and remove the variable.

    Raises:
        OSError: a group is gone, as after its runner has ended.
    """
    for group in filter(None, environment.pop(GROUPS_VARIABLE, "").split(":")):
        descriptor = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"0")  # 0 means the writing process, in any pid namespace
        finally:
            os.close(descriptor)
