"""The rule for free text that users give along: short, and nothing in it that could take over a terminal."""

from __future__ import annotations

import unicodedata

from fal_server.core.faults import Invalid


def checked_text(value: str, field: str, most: int) -> str:
    """Check a note or description.

    Args:
        value: the text.
        field: the request's field, for the error.
        most: how many characters it may have.

    Raises:
        Invalid: too long, or with control characters.
    """
    if len(value) > most:
        raise Invalid(field, f"{field} has {len(value)} characters: use at most {most}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise Invalid(field, f"{field} holds control characters: leave them out")
    return value
