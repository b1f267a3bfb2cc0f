"""The Protocols that adapters implement and that services and loops call."""

from __future__ import annotations

from fal_server.ports.bounds import Bound, Bounds
from fal_server.ports.builder import Builder, BuildLog, BuiltEnvironment, EnvironmentStore
from fal_server.ports.clock import Clock
from fal_server.ports.content import Blobs, ContentStore, DeployedFiles, UploadedFiles, Vault
from fal_server.ports.engine import (
    Adopted,
    Building,
    Engine,
    ExecOutput,
    ExecRequest,
    ExecSession,
    ExpectedStart,
    HealthProber,
    LastSequence,
    LaunchSpec,
    LogSink,
    MetricsReader,
    RunResult,
    TerminalSize,
)
from fal_server.ports.store import LogStore, Store

__all__ = [
    "Adopted",
    "Blobs",
    "Bound",
    "Bounds",
    "BuildLog",
    "Builder",
    "Building",
    "BuiltEnvironment",
    "Clock",
    "ContentStore",
    "DeployedFiles",
    "Engine",
    "EnvironmentStore",
    "ExecOutput",
    "ExecRequest",
    "ExecSession",
    "ExpectedStart",
    "HealthProber",
    "LastSequence",
    "LaunchSpec",
    "LogSink",
    "LogStore",
    "MetricsReader",
    "RunResult",
    "Store",
    "TerminalSize",
    "UploadedFiles",
    "Vault",
]
