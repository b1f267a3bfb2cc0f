"""A tool, and one caller's set of tools."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from fal_mcp.calls import Platform, Refused
from fal_mcp.schemas import Schema

Arguments: TypeAlias = "Mapping[str, object]"
Run: TypeAlias = "Callable[[Platform, Arguments], Awaitable[object]]"
MOST_CHARACTERS = 60_000
_SHORTEST_SECRET = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool.

    Attributes:
        permission: the permission that the caller's key needs; "" accepts any key.
        acts: whether it can change something.
    """

    name: str
    about: str
    schema: Schema
    run: Run
    permission: str = ""
    acts: bool = False

    @property
    def description(self) -> str:
        """The description for agents, with the permission it needs."""
        return f"{self.about} Needs {self.permission}." if self.permission else self.about


class Toolset:
    """The tools of one caller.

    Args:
        now: returns the current time, which is part of each result.
        missing: the message for calls of tools that act, if there are none.
    """

    def __init__(
        self, tools: Sequence[Tool], platform: Platform, now: Callable[[], datetime], *, missing: Mapping[str, str]
    ) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._platform = platform
        self._now = now
        self._missing = missing

    def tool(self, name: str) -> Tool:
        """Return a tool by its name.

        Raises:
            Refused: it does not exist, or not for this caller.
        """
        found = self.tools.get(name)
        if found is None:
            raise Refused(404, self._missing.get(name) or f"there is no tool {name[:80]!r}: list the tools")
        return found

    async def call(self, name: str, arguments: Arguments) -> str:
        """Return a tool's result as text of limited length. It is without the caller's credentials.

        Raises:
            Refused: the tool or the controller refuses; the message contains no credentials either.
        """
        try:
            result = await self.tool(name).run(self._platform, arguments)
        except Refused as refused:
            raise Refused(refused.status, self._covered(refused.message)) from None
        text = json.dumps({"as_of": self._now().isoformat(), "result": result}, ensure_ascii=False)
        text = self._covered(text)
        if len(text) <= MOST_CHARACTERS:
            return text
        return (
            f"{text[:MOST_CHARACTERS]}\n"
            f"Cut: these are {MOST_CHARACTERS} of {len(text)} characters. Ask for less: a smaller limit, a shorter "
            "time, one app."
        )

    def _covered(self, text: str) -> str:
        for secret in self._platform.secrets:
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text
