"""Bounds what some processes take together, where the machine can."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fal_server.core.machines import RunnerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Control groups that bound what enters them.

    Attributes:
        groups: what is to be entered; none if the machine gives none.
        memory: that of them which bounds memory.
    """

    groups: Sequence[Path] = ()
    memory: Path | None = None


class Bounds(Protocol):
    """Makes groups of processes."""

    def bounding(self, name: str, directory: Path, limits: RunnerLimits) -> AbstractAsyncContextManager[Bound]:
        """Make groups, and end what is in them with the block. A later controller ends it if this one is killed.

        Args:
            name: letters, digits and hyphens; nobody else uses it.
            directory: exists as long as the groups, and gets a note of them.
        """
        ...
