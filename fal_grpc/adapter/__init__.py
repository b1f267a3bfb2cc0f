"""Messages to objects, and arguments to messages: one file a noun, pure, and without importing the stubs until used.

A noun's file is loaded when it is first used as an attribute of this package: a command needs one or two of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_grpc.adapter import (
        account,
        app,
        audit,
        changes,
        environment,
        execs,
        key,
        log,
        node,
        request,
        revision,
        run,
        runner,
        scaling,
        secret,
    )

__all__ = [
    "account",
    "app",
    "audit",
    "changes",
    "environment",
    "execs",
    "key",
    "log",
    "node",
    "request",
    "revision",
    "run",
    "runner",
    "scaling",
    "secret",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'fal_grpc.adapter' has no attribute {name!r}")
    return import_module(f"fal_grpc.adapter.{name}")
