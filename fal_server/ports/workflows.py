"""The Protocol of the store of workflows and their runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.identity import AccountId
from fal_server.core.workflows import Workflow, WorkflowRun


class WorkflowStore(Protocol):
    """Workflows and their runs. Each call is one transaction, which is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, workflow: Workflow) -> None:
        """Store a new workflow.

        Raises:
            AlreadyExists: the account has one of this name.
        """
        ...

    async def replace(self, name: str, workflow: Workflow) -> bool:
        """Replace the workflow of this name, possibly renaming it. Return False if there is none.

        Raises:
            AlreadyExists: another workflow has the new name.
        """
        ...

    async def get(self, account: AccountId, name: str) -> Workflow | None:
        """Return one workflow, or None."""
        ...

    async def page(self, account: AccountId, skip: int, limit: int) -> tuple[Sequence[Workflow], int]:
        """Return workflows of an account by name, and their total number.

        Args:
            skip: skip this many.
            limit: at most this many.
        """
        ...

    async def delete(self, account: AccountId, name: str) -> bool:
        """Delete a workflow without its runs; return False if there is none."""
        ...

    async def save_run(self, run: WorkflowRun) -> None:
        """Store a run, new or changed."""
        ...

    async def get_run(self, account: AccountId, run_id: str) -> WorkflowRun | None:
        """Return one run, or None."""
        ...

    async def unfinished_runs(self) -> Sequence[WorkflowRun]:
        """Return the runs of every account that are not completed, oldest first."""
        ...

    async def due_webhooks(self, now: datetime, limit: int) -> Sequence[WorkflowRun]:
        """Return the runs of every account with due webhooks, most overdue first."""
        ...

    async def next_webhook_at(self) -> datetime | None:
        """Return when the next webhook of any account is due. None if there is none."""
        ...

    async def delivered(self, run: WorkflowRun) -> None:
        """Record the webhook's state after an attempt. Do nothing if the run is gone."""
        ...

    async def forget_runs(self, completed_before: datetime) -> int:
        """Delete every account's completed runs that are older than this. Return how many were deleted."""
        ...
