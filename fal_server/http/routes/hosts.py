"""Hosts: the published clients put `queue.` before a host to address the queue."""

from __future__ import annotations

_QUEUE_LABEL = "queue."
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
"""Hosts that the published clients have built in. They lead here only through a proxy."""


def is_cloud_host(host: str) -> bool:
    """Return whether a host, with or without its port, leads here only through a proxy."""
    return host.partition(":")[0].lower() in CLOUD_HOSTS


def is_queue_host(host: str) -> bool:
    """Return whether a host, with or without its port, is the queue's: its name starts with `queue.`."""
    return host[: len(_QUEUE_LABEL)].lower() == _QUEUE_LABEL


def queue_base(scheme: str, host: str) -> str:
    """Return the beginning of the queue's addresses, for a caller of this host."""
    return f"{scheme}://{host}" + ("" if is_queue_host(host) else QUEUE_PREFIX)
