"""Decides which header fields pass between callers and apps. This holds for calls and for the queue."""

from __future__ import annotations

from typing import Final

from fal_server.access.authorization import key_of
from fal_server.http.server.messages import HOP_BY_HOP

# Fields that apps trust to come from the platform or a proxy. An app only gets them from the gateway.
_PLATFORM: Final = frozenset(
    {
        b"forwarded", b"x-fal-caller-user-id", b"x-fal-cancellation", b"x-fal-endpoint", b"x-fal-request-id",
        b"x-forwarded-by", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-forwarded-proto", b"x-forwarded-scheme", b"x-forwarded-server", b"x-forwarded-ssl", b"x-real-ip",
    }
)  # fmt: skip
# Fields about the connection or the body's framing, which the gateway writes itself.
_FRAMING: Final = HOP_BY_HOP | {b"content-length", b"expect"}
WITHHELD: Final = _PLATFORM | _FRAMING


def withheld(name: bytes) -> bool:
    """Return whether a field is withheld from apps, whatever its value.

    Many servers treat `_` like `-` (as CGI does), so that `X_Forwarded_For` would look like the gateway's own field.
    """
    return name in WITHHELD or (b"_" in name and name.replace(b"_", b"-") in WITHHELD)


def has_key(name: bytes, value: bytes) -> bool:
    """Return whether a field contains the caller's platform key. Apps must not get it."""
    return name == b"authorization" and key_of(value.decode("latin-1")) is not None


def kept_in_app(name: bytes, value: bytes, base: bytes) -> bytes | None:
    """Restrict an app's response field to its own paths in a browser.

    All apps share one origin. A cookie for `/` would reach every app, and a service worker with such a scope would
    answer for every app.

    Args:
        name: in lower case.
        value: as the app sent it.
        base: the app's path, as `/owner/app`.

    Returns:
        The value; None drops the field.
    """
    if name == b"service-worker-allowed":
        return None
    if name != b"set-cookie":
        return value
    pair, *attributes = value.split(b";")
    path, kept = b"", [pair]
    for attribute in attributes:
        key, _, text = attribute.partition(b"=")
        match key.strip().lower():
            case b"path":
                path = text.strip()
            case b"domain":
                pass
            case _:
                kept.append(attribute)
    if path != base and not path.startswith(base + b"/"):
        path = base + path.rstrip(b"/") if path.startswith(b"/") else base
    return b";".join([*kept, b" Path=" + path])
