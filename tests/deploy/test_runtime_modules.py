"""The bundled runtime is complete. All modules that its modules import at the top are in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fal.deploy.pickling import RUNTIME_MODULES, source_of


def imported(name: str) -> Iterator[str]:
    """Return this project's modules that a module imports at its top."""
    for node in ast.parse(source_of(name)).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_runtime_imports_nothing_of_ours_that_does_not_travel() -> None:
    needed = {(name, found) for name in RUNTIME_MODULES for found in imported(name)}
    assert not {(name, found) for name, found in needed if found.startswith("fal") and found not in RUNTIME_MODULES}
    assert all(name.rpartition(".")[0] in RUNTIME_MODULES for name in RUNTIME_MODULES if "." in name)
