"""Counts items for people."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return `1 runner`, `2 runners`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
