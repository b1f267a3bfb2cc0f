"""The key of a runner, in the form of FAL_KEY."""

from __future__ import annotations

from fal_server.access.tokens import Tokens


def runner_key(tokens: Tokens, runner_id: str) -> str:
    """Return the key as `id:secret`."""
    return ":".join(tokens.runners.key_of(runner_id))
