"""The addresses of a deployed app. It also has a line to copy that calls the app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fal.deploy import DeploymentResult

_CALLERS = {
    "private": "private: its owner's keys may call it",
    "public": "public: anyone may call it, without a key",
    "shared": "shared: anyone with a key may call it",
}


def addresses(result: DeploymentResult, wanted: str = "all") -> Iterator[tuple[str, str]]:
    """Yield each address once, and a line to call the app.

    Args:
        result: the deploy's result.
        wanted: "all", "playground" or "none".
    """
    playground = result.urls.get("playground", {})
    if wanted == "none":
        return
    if wanted == "playground":
        yield from (("playground", url) for url in playground.values())
        return
    # The page of one endpoint links to the others. A controller without such pages returns the app's own address.
    if playground and playground != result.urls.get("sync"):
        yield "playground", next(iter(playground.values()))
    for endpoint in result.endpoints:
        yield ",".join(endpoint.methods) or "websocket", endpoint.url
    if result.queue_url:
        yield "queue", result.queue_url
    if result.log_url:
        yield "logs", result.log_url
    yield "auth", _CALLERS.get(result.auth_mode, result.auth_mode)
    first = next((endpoint for endpoint in result.endpoints if {"POST", "GET"} & set(endpoint.methods)), None)
    if first is not None:
        # `fal curl` uses the same key as this command; a shell's FAL_KEY may be another one, or unset.
        call = f"curl {first.url}" if result.auth_mode == "public" else f"fal curl {urlsplit(first.url).path[1:]}"
        body = " -H 'Content-Type: application/json' -d '{}'" if "POST" in first.methods else ""
        yield "to call it", f"{call}{body}"
