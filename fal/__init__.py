"""Write apps, deploy them, and manage them. Names load at first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal import api as api
    from fal import app as app
    from fal import apps as apps
    from fal import config as config
    from fal import container as container
    from fal import exceptions as exceptions
    from fal import flags as flags
    from fal import sdk as sdk
    from fal import sync as sync
    from fal import toolkit as toolkit
    from fal.app.app import App
    from fal.app.billing import BillingComponents, BillingDeclaration
    from fal.app.context import current_request
    from fal.app.endpoints import endpoint, realtime
    from fal.app.functions import cached, function
    from fal.app.functions import function as isolated
    from fal.app.health import HealthCheck
    from fal.app.retries import RetryConfig
    from fal.container import ContainerImage
    from fal.sync import sync_dir

    __version__: str
    version_tuple: tuple[int | str, ...]

__all__ = [
    "App",
    "BillingComponents",
    "BillingDeclaration",
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
    "sync_dir",
    "version_tuple",
]

_WHERE = {
    "App": "fal.app.app",
    "BillingComponents": "fal.app.billing",
    "BillingDeclaration": "fal.app.billing",
    "ContainerImage": "fal.container",
    "HealthCheck": "fal.app.health",
    "RetryConfig": "fal.app.retries",
    "cached": "fal.app.functions",
    "current_request": "fal.app.context",
    "endpoint": "fal.app.endpoints",
    "function": "fal.app.functions",
    "isolated": "fal.app.functions",
    "realtime": "fal.app.endpoints",
    "sync_dir": "fal.sync",
}

# `import fal` alone makes these available, as in the published package.
_MODULES = frozenset({"api", "app", "apps", "config", "container", "exceptions", "flags", "sdk", "sync", "toolkit"})

# In a runner this package does not lie in a folder. Importing pathlib would cost more than the rest of this file.
if any(os.path.exists(f"{folder}/_fal_version.py") for folder in __path__):  # noqa: PTH110
    import warnings

    warnings.warn(
        "The published fal package is installed in the same environment, and each overwrites the other's files. "
        "Use an environment for each: pip uninstall fal fal-grpc, then install one of them again.",
        RuntimeWarning,
        stacklevel=2,
    )


def _loaded(name: str) -> object:
    """Load a name at its first use."""
    if name == "__version__":
        from fal_grpc import VERSION

        return VERSION
    if name == "version_tuple":
        parts = str(_loaded("__version__")).split(".")
        return tuple(int(part) if part.isdigit() else part for part in parts)
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"fal.{name}")
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal' has no attribute {name!r}")
    value: object = getattr(import_module(where), "function" if name == "isolated" else name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a checker would take every name for an object
    __getattr__ = _loaded


def __dir__() -> list[str]:
    return sorted(__all__)
