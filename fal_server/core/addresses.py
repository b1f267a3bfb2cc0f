"""The addresses of runners, and the keys of their gates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunnerAddress:
    """The address of a runner's app.

    Attributes:
        gate_key: opens the gate before the port; empty if there is none, so that the app accepts every connection.
    """

    host: str
    port: int
    gate_key: str = field(default="", repr=False)


def metrics_gate_key_of(token: str) -> str:
    """Return the key of the gate at a runner's metrics.

    It differs from that of the app's port: who takes the one port could otherwise pass the controller's proof on to the
    other, and answer with the proof from there.
    """
    return hashlib.sha256(b"fal metrics gate\0" + token.encode()).hexdigest()


def gate_key_of(token: str) -> str:
    """Return the key of a runner's gate. The runner's token cannot be computed from it."""
    return hashlib.sha256(b"fal runner gate\0" + token.encode()).hexdigest()
