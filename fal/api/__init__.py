"""The SDK: `from fal.api import SyncServerlessClient`, its namespaces, and the types that they take and return.

Each name is loaded when it is first used: who lists runners without asyncio does not wait for asyncio to be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.api.aio.apps import AsyncAppsNamespace
    from fal.api.aio.client import AsyncServerlessClient
    from fal.api.aio.environments import AsyncEnvironmentsNamespace
    from fal.api.aio.keys import AsyncKeysNamespace
    from fal.api.aio.queue import AsyncQueueNamespace
    from fal.api.aio.runners import AsyncRunnersNamespace
    from fal.api.aio.secrets import AsyncSecretsNamespace
    from fal.api.apps import AppsNamespace
    from fal.api.client import SyncServerlessClient
    from fal.api.environments import EnvironmentsNamespace
    from fal.api.keys import KeysNamespace
    from fal.api.queue import QueueNamespace
    from fal.api.runners import RunnersNamespace
    from fal.api.secrets import SecretsNamespace
    from fal.exceptions import (
        FalError,
        FalMissingDependencyError,
        FalSerializationError,
        FalServerlessError,
        FalServerlessException,
        InternalFalServerlessError,
        UserFunctionException,
    )
    from fal.queue import QueuedRequest, QueueState, WebhookDelivery
    from fal_grpc.adapter.app import AliasInfo, AuthMode, DeploymentStrategy
    from fal_grpc.adapter.environment import EnvironmentInfo
    from fal_grpc.adapter.key import KeyPreset, KeyScope, UserKeyInfo
    from fal_grpc.adapter.log import LogEntry, LogLevel, LogOrigin
    from fal_grpc.adapter.revision import ApplicationInfo
    from fal_grpc.adapter.run import ServiceURLs
    from fal_grpc.adapter.runner import ReplaceState, RunnerInfo, RunnerState
    from fal_grpc.adapter.scaling import AppExplanation, AppSimulation
    from fal_grpc.adapter.secret import ServerlessSecret
    from fal_grpc.adapter.shell import ExecResult, ShellOutput
    from fal_grpc.credentials import Credentials, KeyCredentials, NoCredentials, TokenCredentials

__all__ = [
    "AliasInfo",
    "AppExplanation",
    "AppSimulation",
    "ApplicationInfo",
    "AppsNamespace",
    "AsyncAppsNamespace",
    "AsyncEnvironmentsNamespace",
    "AsyncKeysNamespace",
    "AsyncQueueNamespace",
    "AsyncRunnersNamespace",
    "AsyncSecretsNamespace",
    "AsyncServerlessClient",
    "AuthMode",
    "Credentials",
    "DeploymentStrategy",
    "EnvironmentInfo",
    "EnvironmentsNamespace",
    "ExecResult",
    "FalError",
    "FalMissingDependencyError",
    "FalSerializationError",
    "FalServerlessError",
    "FalServerlessException",
    "InternalFalServerlessError",
    "KeyCredentials",
    "KeyPreset",
    "KeyScope",
    "KeysNamespace",
    "LogEntry",
    "LogLevel",
    "LogOrigin",
    "NoCredentials",
    "QueueNamespace",
    "QueueState",
    "QueuedRequest",
    "ReplaceState",
    "RunnerInfo",
    "RunnerState",
    "RunnersNamespace",
    "SecretsNamespace",
    "ServerlessSecret",
    "ServiceURLs",
    "ShellOutput",
    "SyncServerlessClient",
    "TokenCredentials",
    "UserFunctionException",
    "UserKeyInfo",
    "WebhookDelivery",
]

_WHERE = {
    "AliasInfo": "fal_grpc.adapter.app",
    "AppExplanation": "fal_grpc.adapter.scaling",
    "AppSimulation": "fal_grpc.adapter.scaling",
    "ApplicationInfo": "fal_grpc.adapter.revision",
    "AppsNamespace": "fal.api.apps",
    "AsyncAppsNamespace": "fal.api.aio.apps",
    "AsyncEnvironmentsNamespace": "fal.api.aio.environments",
    "AsyncKeysNamespace": "fal.api.aio.keys",
    "AsyncQueueNamespace": "fal.api.aio.queue",
    "AsyncRunnersNamespace": "fal.api.aio.runners",
    "AsyncSecretsNamespace": "fal.api.aio.secrets",
    "AsyncServerlessClient": "fal.api.aio.client",
    "AuthMode": "fal_grpc.adapter.app",
    "Credentials": "fal_grpc.credentials",
    "DeploymentStrategy": "fal_grpc.adapter.app",
    "EnvironmentInfo": "fal_grpc.adapter.environment",
    "EnvironmentsNamespace": "fal.api.environments",
    "ExecResult": "fal_grpc.adapter.shell",
    "FalError": "fal.exceptions",
    "FalMissingDependencyError": "fal.exceptions",
    "FalSerializationError": "fal.exceptions",
    "FalServerlessError": "fal.exceptions",
    "FalServerlessException": "fal.exceptions",
    "InternalFalServerlessError": "fal.exceptions",
    "KeyCredentials": "fal_grpc.credentials",
    "KeyPreset": "fal_grpc.adapter.key",
    "KeyScope": "fal_grpc.adapter.key",
    "KeysNamespace": "fal.api.keys",
    "LogEntry": "fal_grpc.adapter.log",
    "LogLevel": "fal_grpc.adapter.log",
    "LogOrigin": "fal_grpc.adapter.log",
    "NoCredentials": "fal_grpc.credentials",
    "QueueNamespace": "fal.api.queue",
    "QueueState": "fal.queue",
    "QueuedRequest": "fal.queue",
    "ReplaceState": "fal_grpc.adapter.runner",
    "RunnerInfo": "fal_grpc.adapter.runner",
    "RunnerState": "fal_grpc.adapter.runner",
    "RunnersNamespace": "fal.api.runners",
    "SecretsNamespace": "fal.api.secrets",
    "ServerlessSecret": "fal_grpc.adapter.secret",
    "ServiceURLs": "fal_grpc.adapter.run",
    "ShellOutput": "fal_grpc.adapter.shell",
    "SyncServerlessClient": "fal.api.client",
    "TokenCredentials": "fal_grpc.credentials",
    "UserFunctionException": "fal.exceptions",
    "UserKeyInfo": "fal_grpc.adapter.key",
    "WebhookDelivery": "fal.queue",
}


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal.api' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
