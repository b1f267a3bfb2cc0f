"""One docstring for two faces: what the blocking class says of a method, its asyncio twin says too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

C = TypeVar("C", bound=type)


def documented_by(source: type) -> Callable[[C], C]:
    """Give each public method and property that has no docstring the one of the same name in `source`."""

    def copy(target: C) -> C:
        for name, member in vars(target).items():
            original = vars(source).get(name)
            if not name.startswith("_") and not member.__doc__ and original is not None:
                member.__doc__ = original.__doc__
        return target

    return copy
