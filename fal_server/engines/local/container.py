"""What the directory of a runner in a container has beside that of another: the engine's note, and what stands for the
interpreter."""

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
from fal_runner.isolation.container import NOTE_VARIABLE, Note, read_note, remove
from fal_runner.isolation.mounts import DATA_VARIABLE
from fal_runner.worker.process_tag import TAG_VARIABLE
from fal_server.core.containers import Container
from fal_server.ports import LaunchSpec

_NOTE = "container.json"
_INTERPRETER = "interpreter"
_SHARED = "container"
_SOCKET_VARIABLE = "FAL_API_SOCKET"
# What an engine itself reads: an app's variable of that name would change how it works.
_ENGINES_OWN = re.compile(
    r"PATH|HOME|USER|TMPDIR|LD_\w+|XDG_\w+|CONTAINERS?_\w+|DOCKER_\w+|BUILDAH_\w+|STORAGE_\w+|REGISTRY_\w+"
)


def interpreter(directory: Path) -> Path:
    """What the shim starts instead of an interpreter: it takes the same arguments."""
    return directory / _INTERPRETER


def container_variables(directory: Path) -> Mapping[str, str]:
    """Tells the shim's sessions that they belong into the container."""
    return {NOTE_VARIABLE: str(directory / _NOTE)}


def lay_out_container(directory: Path, container: Container, launch: LaunchSpec, variables: Mapping[str, str]) -> None:
    """Write what the container is run with; nothing secret.

    Args:
        directory: the runner's, already made.
        variables: the runner's; of these the note has the names alone.
    """
    shared = directory / _SHARED
    shared.mkdir(mode=0o700)
    for module in (Path(fal_runner.__file__).parent / "worker").glob("*.py"):
        shutil.copy(module, shared)  # worker.py, and its neighbours that it loads
    note: Note = {
        "engine": str(container.engine),
        "variables": {name: value for name, value in os.environ.items() if _ENGINES_OWN.fullmatch(name)},
        "image": container.image,
        "name": f"fal-{launch.runner_id}",
        "entrypoint": None if container.entrypoint is None else list(container.entrypoint),
        "cmd": None if container.cmd is None else list(container.cmd),
        "itself": launch.function is None and launch.entrypoint is None,
        "volumes": _volumes(launch),
        "names": sorted({TAG_VARIABLE, *(name for name in variables if not _ENGINES_OWN.fullmatch(name))}),
    }
    (directory / _NOTE).write_text(json.dumps(note))
    root = Path(fal_runner.__file__).parent.parent
    command = shlex.join([sys.executable, "-P", "-m", "fal_runner.isolation.container", str(directory / _NOTE)])
    script = interpreter(directory)
    script.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(root))} exec {command} "$@"\n')
    script.chmod(0o700)


def _volumes(launch: LaunchSpec) -> list[str]:
    """/data, and the socket to which apps hand the files that they make."""
    data, socket = launch.variables.get(DATA_VARIABLE), launch.variables.get(_SOCKET_VARIABLE)
    return [*([f"{data}:/data"] if data else []), *([f"{socket}:{socket}"] if socket else [])]


def remove_container(directory: Path) -> None:
    """End what a runner's container left, where it has one; nothing where it has none."""
    try:
        note = read_note(directory / _NOTE)
    except (OSError, ValueError):
        return
    remove(note)
