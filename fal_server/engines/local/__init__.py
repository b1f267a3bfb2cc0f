"""Runners as processes of this machine: the Engine port over one shim a runner."""

from __future__ import annotations

from fal_server.engines.local.cgroup import RunnerGroups
from fal_server.engines.local.engine import LocalEngine
from fal_server.engines.local.gpus import find_gpus

__all__ = ["LocalEngine", "RunnerGroups", "find_gpus"]
