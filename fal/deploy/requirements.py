"""The packages of an app's environment: its own, and then others."""

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
"""Packages whose versions follow from one another."""
# What serves an app, and what that needs.
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
    """Return the app's requirements and then others; if the app's are layers, the others are the last layer.

    What is added yields to what the app asks for: a package that the app names is left out, and if it is one of those
    that serve, the others are added without a version, so that those are found which go with it.
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
    # A layer is installed without regard to those before it, so it repeats what must stay.
    kept = [item for item in asked if package_name(item) in _SERVING]
    return [*present, [*kept, *left]] if left else present


def flat(given: object) -> list[str]:
    """Return all requirements, whether they are in layers or not."""
    present = given if isinstance(given, list) else []
    return [str(item) for layer in present for item in (layer if isinstance(layer, list) else [layer])]


def package_name(requirement: str) -> str:
    """Return the package that a requirement names, in its normal form; "" for an option or an address."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found.group(1)).lower() if found else ""


def refuse_local_requirements(requirements: object, owner: str) -> None:
    """Refuse requirements that are directories here, which a runner does not have.

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
"""The oldest Python that runs the modules of this project that serve an app."""


def python_version(options: Mapping[str, object], *, code: bool, owner: str) -> str:
    """Return the Python version of the environment; by default this interpreter's.

    Args:
        options: the app's options.
        code: whether code is sent, which this project's modules load there.
        owner: whose they are, for messages.

    Raises:
        DeployError: code is sent, and the version is too old for that.
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
    """Return whether a version is of this interpreter's minor version, which alone reads what this one compiles."""
    return asked.split(".")[:2] == [str(sys.version_info.major), str(sys.version_info.minor)]


def _minor(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and all(part.isdigit() for part in parts[:2]) else None
