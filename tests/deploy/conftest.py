"""What unpickling an app leaves in this process is taken away again."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_module_of_an_app() -> Iterator[None]:
    """A runner keeps the modules that it makes for an app; this process loads many apps."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__spec__", None) is None:
            del sys.modules[name]
