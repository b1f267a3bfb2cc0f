"""Runs a model in several processes of one runner. Each GPU has one process."""

from __future__ import annotations

from fal.distributed.worker import DistributedRunner, DistributedWorker

__all__ = ["DistributedRunner", "DistributedWorker"]
