"""Write apps, deploy them, and manage them. Names load at first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.app.app import App
    from fal.app.context import current_request
    from fal.app.endpoints import endpoint, realtime
    from fal.app.functions import cached, function
    from fal.app.functions import function as isolated
    from fal.app.health import HealthCheck
    from fal.app.retries import RetryConfig
    from fal.container import ContainerImage

    __version__: str

__all__ = [
    "App",
    "ContainerImage",
    "HealthCheck",
    "RetryConfig",
    "__version__",
    "cached",
    "current_request",
    "endpoint",
    "function",
    "isolated",
    "realtime",
]

_WHERE = {
    "App": "fal.app.app",
    "ContainerImage": "fal.container",
    "HealthCheck": "fal.app.health",
    "RetryConfig": "fal.app.retries",
    "cached": "fal.app.functions",
    "current_request": "fal.app.context",
    "endpoint": "fal.app.endpoints",
    "function": "fal.app.functions",
    "isolated": "fal.app.functions",
    "realtime": "fal.app.endpoints",
}

# In a runner this package is in no folder. pathlib's import would cost more than all of this.
if any(os.path.exists(f"{folder}/apps.py") for folder in __path__):  # noqa: PTH110
    import warnings

    warnings.warn(
        "The published fal package is installed in the same environment, and each overwrites the other's files. "
        "Use an environment for each: pip uninstall fal fal-grpc, then install one of them again.",
        RuntimeWarning,
        stacklevel=2,
    )


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("fal-grpc")
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(where), "function" if name == "isolated" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
