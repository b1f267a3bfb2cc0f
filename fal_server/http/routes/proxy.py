"""The door of `proxyUrl` in `@fal-ai/client`: requests for the cloud's hosts, answered by this controller.

The client sends each request of a page to one address, and names the address that it means in a header. Only those of
the cloud's hosts lead anywhere, and only to this controller: nothing is fetched. The page's own key opens what it
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
# What stands before the paths of a host here. The last one is what older clients call the one before it.
_PREFIXES = {"fal.run": "", "queue.fal.run": QUEUE_PREFIX, "rest.fal.ai": "", "rest.alpha.fal.ai": ""}
_VISIBLE = re.compile(rb"[!-~]+")


def is_proxy(target: bytes) -> bool:
    """Return whether a path, perhaps with a query, is this door."""
    return target.partition(b"?")[0].rstrip(b"/") == PROXY


def lead(exchange: Exchange) -> None:
    """Give an exchange the target that its header means.

    Raises:
        HttpError: there is no such header, or more than one, or it means no host of the cloud.
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
    """Return the path and query here of an address of the cloud.

    Raises:
        HttpError: it is no address of the cloud.
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
