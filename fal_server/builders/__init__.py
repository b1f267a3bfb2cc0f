"""Builds apps' environments: the adapters of the Builder port."""

from __future__ import annotations

from fal_server.builders.container import ContainerBuilder
from fal_server.builders.engine_trials import EngineTrials
from fal_server.builders.kinds import Builders
from fal_server.builders.sandboxes import BuildSandboxes
from fal_server.builders.virtualenv import VirtualenvBuilder

__all__ = ["BuildSandboxes", "Builders", "ContainerBuilder", "EngineTrials", "VirtualenvBuilder"]
