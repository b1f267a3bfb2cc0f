"""A container: an app's image, and the program that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CONTAINER = "container"
"""The kind of environment that is an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The options that an engine needs on a machine. A trial finds them.

    Attributes:
        engine: come before the verb, such as `--runtime`.
        run: come after `run`.
        build: come after `build`.
        limits: whether the engine enforces a container's limits.
        publishes: whether a container's port can be published.
    """

    engine: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    limits: bool = False
    publishes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An image, and the program that runs it.

    Attributes:
        engine: the program: podman or docker.
        options: the options that the engine needs on this machine.
        image: the image's id.
        entrypoint, cmd: replace those of the image.
    """

    engine: Path
    options: EngineOptions = field(default_factory=EngineOptions)
    image: str
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
