"""Runners as processes of this machine: the Engine port over one shim a runner."""

from __future__ import annotations

from fal_server.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
