"""What a check found, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Hold the result of a check.

    Attributes:
        name: what was checked.
        detail: what was found.
        fix: what to do; empty if nothing.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""
