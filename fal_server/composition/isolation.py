"""Decides how strongly this controller's runners are isolated."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.trial import strongest, why_impossible
from fal_server.core.faults import Unavailable

log = logging.getLogger(__name__)
_STRONGEST = max(Isolation, key=lambda level: level.strength)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenIsolation:
    """The isolation level of all runners, and why it is not stronger.

    Attributes:
        why: empty if no stronger one was wanted.
    """

    level: Isolation
    why: str = ""

    @property
    def line(self) -> str:
        """The line about it at startup."""
        stronger = f" ({self.why})" if self.why else ""
        return f"{self.level.value}: {self.level.meaning}{stronger}"


async def choose_isolation(wanted: str | None, required: str | None) -> ChosenIsolation:
    """Choose the wanted level, or the strongest that works in a trial.

    Raises:
        Unavailable: the wanted level does not work here, or the strongest working one is weaker than required.
    """
    if wanted is None:
        level, why = await asyncio.to_thread(strongest)
        chosen = ChosenIsolation(level=level, why=f"no stronger level works here: {why}" if why else "")
    else:
        level = Isolation(wanted)
        if why := await asyncio.to_thread(why_impossible, level):
            raise Unavailable(f"--isolation {wanted} does not work here: {why}; `fal doctor` shows which level does")
        chosen = ChosenIsolation(level=level, why="as --isolation says" if level is not _STRONGEST else "")
    if required is not None and level.strength < Isolation(required).strength:
        raise Unavailable(
            f"runners would get isolation {chosen.line}, and --require-isolation asks for {required}; "
            "`fal doctor` shows what works here"
        )
    log.info("isolation: %s", chosen.line)
    return chosen
