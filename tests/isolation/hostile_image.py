"""Attacks of a step of a Dockerfile. Each returns whether it succeeded; the first must, or nothing was tried.

It is run by the image's interpreter with hostile.py beside it, so it uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import hostile

Targets = dict[str, Any]


def reads_what_is_its_own(_: Targets) -> bool:
    return hostile.reads(__file__)


def leaves_the_chroot(targets: Targets) -> bool:
    """Climb out as a process that may change its root again can."""

    def climb() -> bool:
        Path("/below").mkdir(exist_ok=True)
        os.chroot("/below")
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        return hostile.reads(targets["secret"])

    return hostile.in_a_child(climb)


def reads_another_builds_secret(targets: Targets) -> bool:
    return hostile.reads(targets["others_secret"])


def reads_a_disk(_: Targets) -> bool:
    """Read a disk of the machine, or make its device file."""
    return any(entry.name.startswith(("sd", "vd", "nvme", "loop", "dm-")) for entry in os.scandir("/dev"))


def leaves_a_process(targets: Targets) -> bool:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            script = "import threading; threading.Event().wait()"
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", script, targets["daemon"]])
        os._exit(0)
    os.wait()
    return True


ATTACKS: tuple[Callable[[Targets], bool], ...] = (
    reads_what_is_its_own,
    leaves_the_chroot,
    reads_another_builds_secret,
    reads_a_disk,
    leaves_a_process,
    hostile.sees_processes,
    hostile.reads_controllers_variables,
    hostile.signals_the_controller,
    hostile.writes_kernel_settings,
    hostile.opens_a_disk,
    hostile.mounts,
)


def main() -> None:
    """Try everything; write what succeeded."""
    targets, found = json.loads(sys.argv[1]), {}
    for attack in ATTACKS:
        found[attack.__name__] = False
        with contextlib.suppress(OSError):
            found[attack.__name__] = attack(targets)
    print("succeeded: " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
