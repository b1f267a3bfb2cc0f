"""The Protocol of the rows of nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fal_server.core.nodes import JoinedNode


class NodeStore(Protocol):
    """The machines that joined, and the authority that signs their certificates.

    Every method raises Unavailable if the database cannot be used.
    """

    async def authority(self, make: Callable[[], str]) -> str:
        """Return the authority in PEM; the first call makes and seals it.

        Raises:
            Unavailable: it was sealed with another master key.
        """
        ...

    async def all(self) -> Sequence[JoinedNode]:
        """Return the nodes by name."""
        ...

    async def save(self, node: JoinedNode) -> None:
        """Insert or replace a node."""
        ...

    async def remove(self, name: str) -> None:
        """Forget a node, if it is known."""
        ...

    async def forget_all(self) -> None:
        """Forget the nodes and the authority: they belong to another controller."""
        ...
