"""Combines an app's own requirements with the packages that serve it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from fal.deploy.errors import DeployError

Requirements: TypeAlias = "list[str] | list[list[str]]"
BOUND_TOGETHER = frozenset({"fastapi", "pydantic", "pydantic-core", "starlette"})
"""Packages whose versions depend on one another."""
# The packages that serve an app, and their dependencies.
_SERVING = BOUND_TOGETHER | {
    "annotated-doc",
    "annotated-types",
    "anyio",
    "click",
    "h11",
    "httptools",
    "idna",
    "msgpack",
    "opentelemetry-api",
    "sniffio",
    "typing-extensions",
    "typing-inspection",
    "uvicorn",
    "uvloop",
    "websockets",
}
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:$|[\[<>=!~;@(\s])")
_DIRECT = re.compile(r"^\s*(?:-e\s|--editable|\.{1,2}(?:$|[/\\\[])|/|file:)")


def with_requirements(given: object, added: list[str]) -> Requirements:
    """Return the app's requirements and then others. If the app's are layers, the others are the last layer.

    The app's requirements take precedence: a package that the app names is not added. If it is one of the serving
    packages, the others are added without a version, so that the resolver finds compatible ones.
    """
    present = given if isinstance(given, list) else []
    layered = bool(present) and all(isinstance(item, list) for item in present)
    asked = flat(given)
    if set(added) <= set(asked):
        return present
    named = {package_name(item) for item in asked}
    left = [one for one in added if package_name(one) not in named]
    if named & BOUND_TOGETHER:
        left = [package_name(one) for one in left]
    if not layered:
        return [*present, *left]
    # A layer is installed without regard to earlier ones, so it repeats the packages that must stay.
    kept = [item for item in asked if package_name(item) in _SERVING]
    return [*present, [*kept, *left]] if left else present


def flat(given: object) -> list[str]:
    """Return all requirements as one list, whether in layers or not."""
    present = given if isinstance(given, list) else []
    return [str(item) for layer in present for item in (layer if isinstance(layer, list) else [layer])]


def package_name(requirement: str) -> str:
    """Return the normalized name of a requirement's package. It is "" for an option or an address."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found.group(1)).lower() if found else ""


def refuse_local_requirements(requirements: object, owner: str) -> None:
    """Refuse requirements that are local directories, which a runner does not have.

    Raises:
        DeployError: there is one.
    """
    for layer in requirements if isinstance(requirements, list) else ():
        for requirement in layer if isinstance(layer, list) else [layer]:
            text = str(requirement)
            if _DIRECT.match(text) or (os.sep in text and "@" not in text and Path(text).is_dir()):
                raise DeployError(
                    f"{owner}: the requirement {text!r} is a path of this machine, which a runner does not have: "
                    "name a published package or a URL, or send the code by local_python_modules or app_files"
                )


OLDEST_PYTHON = (3, 11)
"""The oldest Python that runs this project's serving modules."""


def python_version(options: Mapping[str, object], *, code: bool, owner: str) -> str:
    """Return the Python version of the environment; by default this interpreter's.

    Args:
        options: the app's options.
        code: whether code is sent, which this project's modules load there.
        owner: what the options belong to, for messages.

    Raises:
        DeployError: code is sent, and the version is too old for it.
    """
    asked = str(options.get("python_version") or f"{sys.version_info.major}.{sys.version_info.minor}")
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if code and (minor := _minor(asked)) is not None and minor < OLDEST_PYTHON:
        raise DeployError(
            f"{owner} asks for Python {asked}, and apps are served by Python {oldest} or newer: "
            f"set python_version to {oldest!r} or leave it out"
        )
    return asked


def is_this_python(asked: str) -> bool:
    """Return whether a version is this interpreter's minor version. Only that one reads its compiled files."""
    return asked.split(".")[:2] == [str(sys.version_info.major), str(sys.version_info.minor)]


def _minor(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and all(part.isdigit() for part in parts[:2]) else None
