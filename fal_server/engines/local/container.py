"""Prepares a container runner's directory. It gets a note for the engine, and a program in place of the interpreter."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import fal_runner
from fal_runner.isolation.container import NOTE_VARIABLE, SHARED_NAME, Note, read_note, remove
from fal_runner.isolation.mounts import DATA_VARIABLE
from fal_runner.worker.process_tag import TAG_VARIABLE
from fal_server.core.containers import Container
from fal_server.core.machines import RunnerLimits
from fal_server.engines.local.cgroup import shares_of
from fal_server.ports import LaunchSpec

_NOTE = "container.json"
_INTERPRETER = "interpreter"
_SOCKET_VARIABLE = "FAL_API_SOCKET"
# The engine reads these variables, so an app's variable of such a name would change how it works.
_ENGINES_OWN = re.compile(
    r"PATH|HOME|USER|TMPDIR|LD_\w+|XDG_\w+|CONTAINERS?_\w+|DOCKER_\w+|BUILDAH_\w+|STORAGE_\w+|REGISTRY_\w+"
)


def interpreter(directory: Path) -> Path:
    """Return the program that replaces an interpreter, with the same arguments. The shim starts it."""
    return directory / _INTERPRETER


def container_variables(directory: Path) -> Mapping[str, str]:
    """Return the variables that make the shim's commands run inside the container."""
    return {NOTE_VARIABLE: str(directory / _NOTE)}


def lay_out_container(directory: Path, container: Container, launch: LaunchSpec, variables: Mapping[str, str]) -> None:
    """Write the note on how to run the container. It holds no secret.

    Args:
        directory: the runner's existing directory.
        variables: the runner's variables; the note has their names alone.
    """
    shared = directory / SHARED_NAME
    shared.mkdir()
    shared.chmod(0o755)  # an image may run as another user; the directory above keeps everybody else out
    for module in (Path(fal_runner.__file__).parent / "worker").glob("*.py"):
        shutil.copyfile(module, shared / module.name)  # worker.py and the modules that it loads
        (shared / module.name).chmod(0o644)
    options = container.options
    note: Note = {
        "engine": str(container.engine),
        "options": list(options.engine),
        # Without the engine's own log, a second copy of the output that nothing bounds.
        "run": [*options.run, "--log-driver", "none", *(_limits(launch.limits) if options.limits else [])],
        "memory_mib": (launch.limits.memory_mib or 0) if options.limits else 0,
        "variables": {name: value for name, value in os.environ.items() if _ENGINES_OWN.fullmatch(name)},
        "image": container.image,
        "name": f"fal-{launch.runner_id}",
        "entrypoint": None if container.entrypoint is None else list(container.entrypoint),
        "cmd": None if container.cmd is None else list(container.cmd),
        "itself": launch.packages.runs_itself or (launch.function is None and launch.entrypoint is None),
        "volumes": _volumes(launch),
        "names": sorted({TAG_VARIABLE, *(name for name in variables if not _ENGINES_OWN.fullmatch(name))}),
    }
    (directory / _NOTE).write_text(json.dumps(note))
    root = Path(fal_runner.__file__).parent.parent
    command = shlex.join([sys.executable, "-P", "-m", "fal_runner.isolation.container", str(directory / _NOTE)])
    script = interpreter(directory)
    script.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(root))} exec {command} "$@"\n')
    script.chmod(0o700)


def _limits(limits: RunnerLimits) -> list[str]:
    """Return the options for its limits. Swap is off, because it would extend the memory."""
    most = f"{limits.memory_mib}m"
    memory = [] if limits.memory_mib is None else ["--memory", most, "--memory-swap", most]
    return ["--pids-limit", str(limits.processes), "--cpu-shares", str(shares_of(limits)), *memory]


def _volumes(launch: LaunchSpec) -> list[str]:
    """Return the volumes: /data, and the directory of the controller's socket.

    A socket alone would be lost when a later controller makes another one.
    """
    data, socket = launch.variables.get(DATA_VARIABLE), launch.variables.get(_SOCKET_VARIABLE)
    calls = None if socket is None else Path(socket).parent
    return [*([f"{data}:/data"] if data else []), *([f"{calls}:{calls}:ro"] if calls else [])]


def remove_container(directory: Path) -> None:
    """Kill and remove a runner's container if it has one."""
    try:
        note = read_note(directory / _NOTE)
    except (OSError, ValueError):
        return
    remove(note)
