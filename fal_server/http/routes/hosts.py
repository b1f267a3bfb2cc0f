"""What the host of a request's address says: the published clients put `queue.` before it to address the queue."""

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
"""What the published clients call by name. A proxy can lead that here; to all others it is the cloud."""


def is_cloud_host(host: str) -> bool:
    """Whether a host, with or without its port, is one that leads here by a proxy alone."""
    return host.partition(":")[0].lower() in CLOUD_HOSTS


def is_queue_host(host: str) -> bool:
    """Whether a host, with or without its port, is the queue's: `queue.fal.run`, or `queue.` before any other name."""
    return host[: len(_QUEUE_LABEL)].lower() == _QUEUE_LABEL


def queue_base(scheme: str, host: str) -> str:
    """Where the queue's own addresses begin, as seen by who asked this host."""
    return f"{scheme}://{host}" + ("" if is_queue_host(host) else QUEUE_PREFIX)
