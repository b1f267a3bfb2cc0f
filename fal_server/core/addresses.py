"""Where runners are reached, and the key of the gate before each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunnerAddress:
    """Where the controller reaches a runner's app.

    Attributes:
        gate_key: opens the gate before the port; empty if there is none, so that the app takes every connection.
    """

    host: str
    port: int
    gate_key: str = field(default="", repr=False)


def gate_key_of(token: str) -> str:
    """Return the key of a runner's gate; the runner's token cannot be computed from it."""
    return hashlib.sha256(b"fal runner gate\0" + token.encode()).hexdigest()
