"""The tables of docs/explanation/security. They have the success of each attack, by level and user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fal_runner.isolation.levels import Isolation
from tests.support.controller import ROOT

PAGE = ROOT / "docs" / "explanation" / "security.md"
LEVELS = list(Isolation)
# Root can become a user; otherwise the tests' own user is the user.
USERS = ("root", "user") if os.getuid() == 0 else ("user",)
_END = "<!-- end -->\n"
Found = Mapping[str, Mapping[str, Any]]


@cache
def fight(arena: str, level: Isolation, user: str) -> Found:
    """Run an arena; return the successful attacks, by where they were tried."""
    become = ["tests.isolation.as_user"] if user == "user" and os.getuid() == 0 else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.isolation.with_gpus", *become, f"tests.isolation.{arena}", level.value],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        arena: the module that runs the attacks.
        mark: marks the table on the page.
        subject: heads the first column.
        attacks: descriptions by name.
        cell: the text for an attack, by where it succeeded.
    """

    arena: str
    mark: str
    subject: str
    attacks: Mapping[str, str]
    cell: Callable[[str, Found], str]

    def lines(self) -> list[str]:
        """Return the table's lines, by trying the attacks."""
        columns = [(level, user) for level in LEVELS for user in ("user", "root")]
        lines = [
            f"| {self.subject} | {' | '.join(f'{level.value}, {user}' for level, user in columns)} |",
            f"|---|{'---|' * len(columns)}",
        ]
        for name, says in self.attacks.items():
            cells = [self.cell(name, fight(self.arena, level, user)) for level, user in columns]
            lines.append(f"| {says} | {' | '.join(cells)} |")
        return lines

    def documented(self) -> dict[str, list[str]]:
        """Return the page's table."""
        text = PAGE.read_text().partition(self._begin)[2].partition(_END)[0]
        rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines()[2:]]
        return {row[0]: row[1:] for row in rows}

    def column(self, level: Isolation, user: str) -> int:
        return LEVELS.index(level) * 2 + ("user", "root").index(user)

    def write(self) -> None:
        """Write the table to the page."""
        head, _, rest = PAGE.read_text().partition(self._begin)
        PAGE.write_text(head + self._begin + "\n".join(self.lines()) + "\n" + _END + rest.partition(_END)[2])

    @property
    def _begin(self) -> str:
        return f"<!-- {self.mark} -->\n"
