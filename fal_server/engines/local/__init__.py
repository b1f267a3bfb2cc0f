"""Runs runners as processes of this machine, each under a shim."""

from __future__ import annotations

from fal_server.engines.local.cgroup import RunnerGroups
from fal_server.engines.local.gpus import find_gpus
from fal_server.engines.local.host import LocalHost, end_all

__all__ = ["LocalHost", "RunnerGroups", "end_all", "find_gpus"]
