"""Reads the `authorization` header: the one reading of it, for HTTP and for gRPC."""

from __future__ import annotations

from collections.abc import Iterable

_KEY, _BEARER = "key", "bearer"


def key_of(value: str) -> tuple[str, str] | None:
    """Return id and secret of a platform's key: `Key id:secret` or `Bearer id:secret`; None for all else.

    What looks like a key that was sent wrongly is one too, so that it is refused and no app gets to see it: a tab for
    the space, a colon after the scheme, half of a key, a key without a scheme. Basic credentials and Bearer tokens
    without a colon are none, because apps may use them themselves.
    """
    scheme, text = _split(value)
    key_id, colon, secret = text.partition(":")
    return (key_id, secret) if colon or scheme == _KEY else None


def first_key(values: Iterable[str]) -> tuple[str, str] | None:
    """Return the first platform's key among the lines of a header, or None."""
    return next((key for value in values if (key := key_of(value)) is not None), None)


def token_of(value: str) -> str:
    """Return what follows the scheme `Key` or `Bearer`; empty for another scheme."""
    return _split(value)[1]


def _split(value: str) -> tuple[str, str]:
    """Return the scheme, in lower case, and what follows; both are empty for a scheme that is not ours."""
    first, *rest = value.split(maxsplit=1) or [""]
    scheme = first.lower().rstrip(":")
    if scheme in (_KEY, _BEARER):
        return scheme, rest[0].strip() if rest else ""
    # No scheme has a colon: somebody forgot it.
    return (_KEY, first) if ":" in first and not rest else ("", "")
