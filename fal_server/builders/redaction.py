"""Keeps the passwords that URLs carry out of build logs and errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

_USER_INFO = re.compile(r"(?<=://)[^/\s'\"`]*@")
_MASK = "****"


class Redactor:
    """Masks what stands before the @ of a URL, wherever it appears.

    Args:
        sources: texts whose URLs are known to carry passwords: these are masked also outside of URLs.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        found: set[str] = set()
        for source in sources:
            for match in _USER_INFO.finditer(source):
                for part in match.group()[:-1].split(":", 1):
                    found |= {part, unquote(part)}
        # A user's name such as `git` or `token` is no secret, and masking it would garble the log.
        longest_first = sorted((part for part in found if len(part) >= 6), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text without passwords."""
        masked = _USER_INFO.sub(f"{_MASK}@", text)
        return self._known.sub(_MASK, masked) if self._known else masked
