"""Runs a model in several processes of one runner, one for each GPU."""

from __future__ import annotations

from fal.distributed.worker import DistributedRunner, DistributedWorker

__all__ = ["DistributedRunner", "DistributedWorker"]
