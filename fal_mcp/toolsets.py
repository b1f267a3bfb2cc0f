"""Selects the tools of a caller."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from fal_mcp.acting import acting
from fal_mcp.calls import Platform
from fal_mcp.discovery import DISCOVERY
from fal_mcp.plans import Plans
from fal_mcp.platform_tools import READING
from fal_mcp.tools import Toolset

EXTRA = "pip install 'fal-grpc[mcp]'"


def toolset(
    platform: Platform,
    plans: Plans,
    now: Callable[[], datetime],
    *,
    writes: bool,
    how_to_allow: str,
    may: Callable[[str], bool] = lambda permission: True,
) -> Toolset:
    """Return the tools of a caller. They are all that read, and those that act if they are allowed.

    Args:
        writes: whether tools may act.
        how_to_allow: how to enable them, for callers of a missing tool.
        may: returns whether the caller has a permission; a tool that acts is missing without it.
    """
    missing: dict[str, str] = {}
    tools = [*READING, *DISCOVERY]
    for tool in acting(plans):
        if not writes:
            missing[tool.name] = f"{tool.name} acts, and this server only reads: {how_to_allow}"
        elif not may(tool.permission):
            missing[tool.name] = f"{tool.name} needs {tool.permission}, and your key lacks it: use a key that has it"
        else:
            tools.append(tool)
    return Toolset(tools, platform, now, missing=missing)
