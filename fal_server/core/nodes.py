"""The machines that joined a controller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedNode:
    """A machine that joined, as it is stored.

    Value: it never changes.

    Attributes:
        name: what the machine calls itself, from its own directory.
        host, port: where its door is.
        drained: whether nothing is started on it.
        region: where it said last that it is; empty if it did not say.
    """

    name: str
    host: str
    port: int
    joined_at: datetime
    drained: bool = False
    region: str = ""
