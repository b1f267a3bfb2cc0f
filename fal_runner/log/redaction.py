"""Keeps the values of secrets out of the log."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from urllib.parse import quote, quote_plus

MASK = "******"
_SHORTEST = 4  # shorter values would mask ordinary words


class Redactor:
    """Masks values wherever they occur. They may be plain, in JSON, URLs, base64, or lines of a multi-line value.

    Args:
        values: the secrets; those shorter than 4 characters are ignored.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._forms = sorted(forms, key=len, reverse=True)  # longest first, because one may be the start of another

    def finds(self, text: str) -> bool:
        """Return whether the text contains a value. It is faster than `redact`, and works on many lines at once."""
        return any(form in text for form in self._forms)

    def redact(self, text: str) -> str:
        """Mask the values in the text."""
        return self._pattern.sub(MASK, text) if self._forms else text

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """The expression for the values. It is made late, because few runners print one, and a start would wait."""
        return re.compile("|".join(map(re.escape, self._forms)))

    def redact_cut(self, text: str) -> str:
        """Mask the values in truncated text. It may end with the start of a value."""
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
    """Return the spellings of a value in output, line by line."""
    if len(value) < _SHORTEST:
        return set()
    lines = {line.strip() for line in value.splitlines()} | {value, value.strip()}
    plain = {line for line in lines if len(line) >= _SHORTEST}
    escaped = {
        form[1:-1] for line in plain for form in (json.dumps(line), json.dumps(line, ensure_ascii=False), repr(line))
    }
    quoted = {form for line in (value, value.strip()) for form in (quote(line, safe=""), quote(line), quote_plus(line))}
    encoded = {form for line in plain for form in _base64_forms(line.encode("utf-8", "surrogatepass"))}
    return {form for form in plain | escaped | quoted | encoded if "\n" not in form and len(form) >= _SHORTEST}


def _base64_forms(value: bytes) -> Iterator[str]:
    """Yield a value in base64, alone or inside a longer text. An example is the password in `Authorization: Basic`.

    Inside a longer text it may start at any of three positions of a group. Its first and last characters then depend on
    its neighbors, and are left out. Long ones are often wrapped at 64 or 76 characters.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        alone = encode(value).decode()
        yield alone
        yield alone.rstrip("=")
        for width in (64, 76):
            yield from (alone[start : start + width] for start in range(0, len(alone), width))
        for shift, first in ((0, 0), (1, 2), (2, 3)):
            yield encode(bytes(shift) + value).decode()[first : (shift + len(value)) * 8 // 6]
