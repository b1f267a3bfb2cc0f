"""Puts a process into the control groups of its runner, before it runs anything of the runner's."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

GROUPS_VARIABLE = "FAL_CONTROL_GROUPS"
"""Names the directories of the groups, separated by colons; the program that is launched does not see it."""


def enter(environment: MutableMapping[str, str]) -> None:
    """Enter the groups that the environment names, and remove their names from it.

    Raises:
        OSError: one is gone, as once its runner has ended.
    """
    for group in filter(None, environment.pop(GROUPS_VARIABLE, "").split(":")):
        descriptor = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"0")  # whoever writes it, in the numbers of any pid namespace
        finally:
            os.close(descriptor)
