"""The SDK's types at the published import path; `fal.api` has them too. Names load at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.app.health import HealthCheck
    from fal.app.health import HealthCheckConfig as ApplicationHealthCheckConfig
    from fal.app.retries import RetryConfig
    from fal_grpc.adapter.app import AliasInfo, DeploymentStrategy
    from fal_grpc.adapter.environment import EnvironmentInfo
    from fal_grpc.adapter.key import KeyPreset, KeyScope, UserKeyInfo
    from fal_grpc.adapter.revision import ApplicationInfo
    from fal_grpc.adapter.run import MachineRequirements, ServiceURLs
    from fal_grpc.adapter.runner import ReplaceState, RunnerInfo, RunnerState
    from fal_grpc.adapter.secret import ServerlessSecret
    from fal_grpc.credentials import Credentials
    from fal_grpc.credentials import KeyCredentials as FalServerlessKeyCredentials

__all__ = [
    "AliasInfo",
    "ApplicationHealthCheckConfig",
    "ApplicationInfo",
    "Credentials",
    "DeploymentStrategy",
    "EnvironmentInfo",
    "FalServerlessKeyCredentials",
    "HealthCheck",
    "KeyPreset",
    "KeyScope",
    "MachineRequirements",
    "ReplaceState",
    "RetryConfig",
    "RunnerInfo",
    "RunnerState",
    "ServerlessSecret",
    "ServiceURLs",
    "UserKeyInfo",
    "get_credentials",
]

_MODULES = {
    "fal.app.health": ["HealthCheck"],
    "fal.app.retries": ["RetryConfig"],
    "fal_grpc.adapter.app": ["AliasInfo", "DeploymentStrategy"],
    "fal_grpc.adapter.environment": ["EnvironmentInfo"],
    "fal_grpc.adapter.key": ["KeyPreset", "KeyScope", "UserKeyInfo"],
    "fal_grpc.adapter.revision": ["ApplicationInfo"],
    "fal_grpc.adapter.run": ["MachineRequirements", "ServiceURLs"],
    "fal_grpc.adapter.runner": ["ReplaceState", "RunnerInfo", "RunnerState"],
    "fal_grpc.adapter.secret": ["ServerlessSecret"],
    "fal_grpc.credentials": ["Credentials"],
}
_WHERE = {
    **{name: (module, name) for module, names in _MODULES.items() for name in names},
    "ApplicationHealthCheckConfig": ("fal.app.health", "HealthCheckConfig"),
    "FalServerlessKeyCredentials": ("fal_grpc.credentials", "KeyCredentials"),
}


def get_credentials(team: str | None = None, key: str | None = None, profile: str | None = None) -> Credentials:
    """Return the credentials that a client uses.

    Args:
        team: the team to act for, with a login token.
        key: "KEY_ID:KEY_SECRET", overriding the configured key.
        profile: the profile to use.

    Raises:
        MissingCredentialsError: there are none.
        ConfigError: they are malformed.
    """
    from fal.settings import resolve

    return resolve(api_key=key, profile=profile, team=team).credentials


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'fal.sdk' has no attribute {name!r}")
    from importlib import import_module

    module, own = _WHERE[name]
    return getattr(import_module(module), own)
