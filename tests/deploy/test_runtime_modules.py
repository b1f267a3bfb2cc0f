"""What travels with each app is whole: what its modules import at their top travels too."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fal.deploy.pickling import RUNTIME_MODULES, source_of


def imported(name: str) -> Iterator[str]:
    """The modules of this project that a module imports when it is imported itself."""
    for node in ast.parse(source_of(name)).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_runtime_imports_nothing_of_ours_that_does_not_travel() -> None:
    needed = {(name, found) for name in RUNTIME_MODULES for found in imported(name)}
    assert not {(name, found) for name, found in needed if found.startswith("fal") and found not in RUNTIME_MODULES}
    assert all(name.rpartition(".")[0] in RUNTIME_MODULES for name in RUNTIME_MODULES if "." in name)
