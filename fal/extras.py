"""Lists the packages that this project's extras install. Missing ones are reported early."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

APP = ("cloudpickle", "fastapi", "pydantic", "uvicorn")
CONTROLLER = ("sqlalchemy", "alembic", "aiosqlite", "cryptography", "httptools", "psutil", "uvloop")
"""Packages that only the extra `controller` installs."""
MCP = ("mcp",)
EXTRAS = {
    "app": APP,
    "controller": CONTROLLER,
    "mcp": MCP,
    "plot": ("PIL",),
    "postgresql": ("asyncpg",),
    "ray": ("ray",),
    "s3": ("obstore",),
    "testing": ("pytest",),
}
"""What each extra installs. The extra `profile` is missing, because it installs a program and no module."""


def missing(modules: Iterable[str]) -> list[str]:
    """Return the modules that are not installed here."""
    return [module for module in modules if find_spec(module) is None]
