"""Converts messages to objects and arguments to messages. Each noun has one file, without I/O.

A noun's file, and the stubs it needs, load at the first use of its attribute here: a command needs only one or two.
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
        drain,
        environment,
        execs,
        key,
        log,
        node,
        notice,
        request,
        revision,
        run,
        runner,
        scaling,
        secret,
        shell,
    )

__all__ = [
    "account",
    "app",
    "audit",
    "changes",
    "drain",
    "environment",
    "execs",
    "key",
    "log",
    "node",
    "notice",
    "request",
    "revision",
    "run",
    "runner",
    "scaling",
    "secret",
    "shell",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'fal_grpc.adapter' has no attribute {name!r}")
    return import_module(f"fal_grpc.adapter.{name}")
