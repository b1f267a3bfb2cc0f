"""Allowed hosts of requests, and the prefix `queue.`. Published clients address the queue by it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from starlette.requests import Request

_QUEUE_LABEL = "queue."
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
_LABELS = (_QUEUE_LABEL, "ws.", "api.", "rest.")
QUEUE_PREFIX = "/queue"
CLOUD_HOSTS = (
    "fal.run",
    "queue.fal.run",
    "ws.fal.run",
    "rest.fal.ai",
    "v3.fal.media",
    "rest.alpha.fal.ai",
    "api.alpha.fal.ai",
)
"""Hosts that are built into the published clients. They lead here only through a proxy."""


class AllowedHosts:
    """Decides under which names the controller may be addressed over HTTP.

    A page of another site can point its own name at this machine's address, and then shares an origin with the apps
    here. It cannot do that with addresses, names of this machine, and those of the fal cloud, so they are always
    allowed.

    Args:
        names: of the controller; each also allows the names that clients derive from it, such as `queue.NAME`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self.admits = lru_cache(maxsize=256)(self._admits)

    def _admits(self, host: bytes) -> bool:
        text = host.decode("latin-1").lower()
        name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0].rstrip(".")
        if not name or name == "localhost" or name.endswith(".localhost") or name in CLOUD_HOSTS:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names or any(name.removeprefix(label) in self._names for label in _LABELS)
        return True


def is_cloud_host(host: str) -> bool:
    """Return whether a host leads here only through a proxy. It may have its port."""
    return host.partition(":")[0].lower() in CLOUD_HOSTS


def is_queue_host(host: str) -> bool:
    """Return whether a host, with or without its port, is the queue's. Its name starts with `queue.`."""
    return host[: len(_QUEUE_LABEL)].lower() == _QUEUE_LABEL


def queue_base(scheme: str, host: str) -> str:
    """Return the base of the queue's addresses for this host's caller."""
    return f"{scheme}://{host}" + ("" if is_queue_host(host) else QUEUE_PREFIX)


def folder_of(request: Request, path: str, scheme: str = "") -> str:
    """Return a folder's source for a content security policy. The folder has the controller's own pages.

    Apps have the same origin, so the origin alone would allow their files.

    Args:
        scheme: with its slashes; empty means that of the page.
    """
    host = request.headers.get("host", "")
    return f"{scheme}{host}{path}" if _HOST.fullmatch(host) else "'self'"
