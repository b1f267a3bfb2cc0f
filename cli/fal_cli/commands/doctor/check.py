"""The result of a check, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of a check.

    Attributes:
        name: the subject of the check.
        detail: the finding.
        fix: what to do; empty if nothing.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""
