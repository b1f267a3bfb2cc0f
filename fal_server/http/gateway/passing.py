"""Which header fields pass between callers and apps: the one place that decides, for calls and for the queue."""

from __future__ import annotations

from typing import Final

from fal_server.access.authorization import key_of
from fal_server.http.server.messages import HOP_BY_HOP

# What apps take for the word of the platform, or of a proxy before it. An app gets its own word from the gateway.
_PLATFORM: Final = frozenset(
    {
        b"forwarded", b"x-fal-caller-user-id", b"x-fal-cancellation", b"x-fal-endpoint", b"x-fal-request-id",
        b"x-forwarded-by", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-forwarded-proto", b"x-forwarded-scheme", b"x-forwarded-server", b"x-forwarded-ssl", b"x-real-ip",
    }
)  # fmt: skip
# About the connection or the body's framing, which the gateway writes itself.
_FRAMING: Final = HOP_BY_HOP | {b"content-length", b"expect"}
WITHHELD: Final = _PLATFORM | _FRAMING


def withheld(name: bytes) -> bool:
    """Return whether a field is kept from apps, whatever its value.

    Many servers take `_` for `-` (as CGI does), so that `X_Forwarded_For` would pass for the gateway's own field.
    """
    return name in WITHHELD or (b"_" in name and name.replace(b"_", b"-") in WITHHELD)


def has_key(name: bytes, value: bytes) -> bool:
    """Return whether a field holds the caller's platform key, which is no app's business."""
    return name == b"authorization" and key_of(value.decode("latin-1")) is not None


def kept_in_app(name: bytes, value: bytes, base: bytes) -> bytes | None:
    """Return the value of a field of an app's response, so that a browser keeps it to the app's own paths.

    All apps share one origin. A cookie for `/` would reach every app, and a service worker with such a scope would
    answer in the place of every app.

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
