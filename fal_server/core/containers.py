"""A container: an image of an app, and the program that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONTAINER = "container"
"""The kind of environment that is an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An image, and the program that runs it.

    Attributes:
        engine: the program: podman or docker.
        image: the image's id.
        entrypoint, cmd: replace those of the image.
    """

    engine: Path
    image: str
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
