"""The endpoint for `proxyUrl` in `@fal-ai/client`. This controller answers requests for the cloud's hosts.

The client sends each request of a page to one address, and names the real address in a header. Only addresses of the
cloud's hosts are accepted, and they lead only to this controller: nothing is fetched. The page's own key authorizes the
calls.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from fal_server.http.routes.hosts import QUEUE_PREFIX
from fal_server.http.server.errors import HttpError
from fal_server.http.server.exchange import Exchange

PROXY = b"/proxy"
TARGET_URL = b"x-fal-target-url"
# The path prefix here for each host. The last one is an older clients' name for the one before it.
_PREFIXES = {"fal.run": "", "queue.fal.run": QUEUE_PREFIX, "rest.fal.ai": "", "rest.alpha.fal.ai": ""}
_VISIBLE = re.compile(rb"[!-~]+")


def is_proxy(target: bytes) -> bool:
    """Return whether a path, possibly with a query, is this endpoint."""
    return target.partition(b"?")[0].rstrip(b"/") == PROXY


def lead(exchange: Exchange) -> None:
    """Set an exchange's target to the one in its header.

    Raises:
        HttpError: there is no such header, or more than one, or it names no host of the cloud.
    """
    given = [value for name, value in exchange.headers if name == TARGET_URL]
    if len(given) != 1:
        raise HttpError(
            400,
            "bad_request",
            "/proxy is the `proxyUrl` of @fal-ai/client: send one x-fal-target-url header with the address to call",
        )
    exchange.target = target_of(given[0])
    exchange.headers = [(name, value) for name, value in exchange.headers if name != TARGET_URL]


def target_of(url: bytes) -> bytes:
    """Return the local path and query for an address of the cloud.

    Raises:
        HttpError: it is not an address of the cloud.
    """
    try:
        parts = urlsplit(url.decode("ascii"))
    except ValueError:
        parts = urlsplit("")
    prefix = _PREFIXES.get(parts.netloc.lower())
    if parts.scheme != "https" or prefix is None or not _VISIBLE.fullmatch(url):
        raise HttpError(
            403,
            "bad_request",
            "x-fal-target-url names no address that this controller answers: /proxy leads https://fal.run, "
            "https://queue.fal.run and https://rest.fal.ai here, and nothing anywhere else",
        )
    query = f"?{parts.query}" if parts.query else ""
    return f"{prefix}/{parts.path.lstrip('/')}{query}".encode()
