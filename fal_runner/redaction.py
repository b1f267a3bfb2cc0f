"""Keeping secrets' values out of what is written down."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "******"
_SHORTEST = 4  # shorter values would mask ordinary words


class Redactor:
    """Replaces values wherever they occur, also in base64 and in URLs, and each line of a value of several lines.

    Args:
        values: the secrets; those shorter than 4 characters are left alone.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._forms = sorted(forms, key=len, reverse=True)  # the longest first: one may begin another
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if forms else None

    def redact(self, text: str) -> str:
        """The text without the values."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def redact_cut(self, text: str) -> str:
        """The same for text whose end was cut off, so that the beginning of a value may be at its end."""
        longest = 0
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), longest, -1):
                if text.endswith(form[:length]):
                    longest = length
                    break
        if not longest:
            return self.redact(text)
        return self.redact(text[:-longest]) + MASK


def _forms(value: str) -> set[str]:
    """How a value may be spelled in output."""
    lines = {line.strip() for line in value.splitlines()} | {value}
    plain = {line for line in lines if len(line) >= _SHORTEST and "\n" not in line}
    if len(value) < _SHORTEST:
        return set()
    encoded = {
        base64.b64encode(value.encode()).decode(),
        base64.urlsafe_b64encode(value.encode()).decode(),
        base64.b64encode(value.encode()).decode().rstrip("="),
        quote(value, safe=""),
        quote_plus(value),
    }
    return plain | encoded
