"""The addresses at which a deployed app answers, and a line to copy that calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.deploy import DeploymentResult


def addresses(result: DeploymentResult, wanted: str = "all") -> Iterator[tuple[str, str]]:
    """Yield what answers, each address once, and a line to copy that calls the app.

    Args:
        result: of the deploy.
        wanted: "all", "playground" or "none".
    """
    playground = result.urls.get("playground", {})
    if wanted == "none":
        return
    # A controller without a page for it gives the app's own address.
    if wanted == "playground" or playground != result.urls.get("sync"):
        yield from (("playground", url) for url in playground.values())
    if wanted == "playground":
        return
    for endpoint in result.endpoints:
        yield ",".join(endpoint.methods) or "websocket", endpoint.url
    if result.queue_url:
        yield "queue", result.queue_url
    if result.log_url:
        yield "logs", result.log_url
    first = next((endpoint for endpoint in result.endpoints if {"POST", "GET"} & set(endpoint.methods)), None)
    if first is not None:
        key = "" if result.auth_mode == "public" else ' -H "Authorization: Key $FAL_KEY"'
        body = " -H 'Content-Type: application/json' -d '{}'" if "POST" in first.methods else ""
        yield "to call it", f"curl {first.url}{key}{body}"
