"""Parses the `authorization` header, in one place for HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterable

_KEY, _BEARER = "key", "bearer"


def key_of(value: str) -> tuple[str, str] | None:
    """Return id and secret of a platform key: `Key id:secret` or `Bearer id:secret`; None for anything else.

    A malformed key also counts as one, so that it is refused and no app sees it: with a tab instead of the space, with
    a colon after the scheme, with one half only, or without a scheme. Basic credentials and Bearer tokens without a
    colon do not count, because apps may use them themselves.
    """
    scheme, text = _split(value)
    key_id, colon, secret = text.partition(":")
    return (key_id, secret) if colon or scheme == _KEY else None


def first_key(values: Iterable[str]) -> tuple[str, str] | None:
    """Return the first platform key in a header's values, or None."""
    return next((key for value in values if (key := key_of(value)) is not None), None)


def token_of(value: str) -> str:
    """Return the text after the scheme `Key` or `Bearer`. It is empty for another scheme."""
    return _split(value)[1]


def _split(value: str) -> tuple[str, str]:
    """Return the scheme, in lower case, and the text after it. Both are empty for a foreign scheme."""
    first, *rest = value.split(maxsplit=1) or [""]
    scheme = first.lower().rstrip(":")
    if scheme in (_KEY, _BEARER):
        return scheme, rest[0].strip() if rest else ""
    # No scheme has a colon, so the scheme is missing.
    return (_KEY, first) if ":" in first and not rest else ("", "")
