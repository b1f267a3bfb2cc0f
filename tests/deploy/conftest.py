"""Removes what unpickling an app leaves in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_module_of_an_app() -> Iterator[None]:
    """Remove an app's modules after each test. A runner would keep them, but this process loads many apps."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__spec__", None) is None:
            del sys.modules[name]
