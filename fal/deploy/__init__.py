"""Deploys apps and runs code. Names load at first use, because they need the extra `app`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fal.extras import APP, missing

if TYPE_CHECKING:
    from fal.deploy.deployment import Client, build, deploy, plan, run
    from fal.deploy.preparation import PreparedApp, prepare
    from fal.deploy.results import DeploymentResult, DeployOptions

__all__ = ["Client", "DeployOptions", "DeploymentResult", "PreparedApp", "build", "deploy", "plan", "prepare", "run"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'fal.deploy' has no attribute {name!r}")
    lacking = missing(APP)
    if lacking:
        from fal.deploy.errors import MissingExtraError

        raise MissingExtraError(f"writing and deploying apps needs {', '.join(lacking)}: pip install 'fal-grpc[app]'")
    module = import_module("fal.deploy.preparation" if name in ("PreparedApp", "prepare") else "fal.deploy.deployment")
    return getattr(module, name)
