"""Workflows and their runs in the database. Inputs and outputs of runs are sealed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.identity import AccountId
from fal_server.core.queue import Answer, WebhookState
from fal_server.core.workflows import Workflow, WorkflowRun
from fal_server.ports import Vault
from fal_server.store.sql.database import Database, explained
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.tables import WORKFLOW_RUNS, WORKFLOWS, owned_by


class SqlWorkflowStore:
    """Implements the port WorkflowStore in a Store's database. The Store closes it.

    Args:
        vault: seals inputs and responses.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def add(self, workflow: Workflow) -> None:
        async def work(connection: AsyncConnection) -> None:
            with _only_one(workflow.name):
                await connection.execute(insert(WORKFLOWS), _workflow_row(workflow))

        await self._database.write(work)

    async def replace(self, name: str, workflow: Workflow) -> bool:
        mine = update(WORKFLOWS).where(owned_by(WORKFLOWS, workflow.account), WORKFLOWS.c.name == name)

        async def work(connection: AsyncConnection) -> bool:
            with _only_one(workflow.name):
                return (await connection.execute(mine.values(_workflow_row(workflow)))).rowcount > 0

        return await self._database.write(work)

    async def get(self, account: AccountId, name: str) -> Workflow | None:
        query = select(WORKFLOWS).where(owned_by(WORKFLOWS, account), WORKFLOWS.c.name == name)
        found = await self._rows(query)
        return _workflow(found[0]) if found else None

    async def page(self, account: AccountId, skip: int, limit: int) -> tuple[Sequence[Workflow], int]:
        mine = owned_by(WORKFLOWS, account)
        query = select(WORKFLOWS).where(mine).order_by(WORKFLOWS.c.name).offset(skip).limit(limit)
        count = select(func.count()).select_from(WORKFLOWS).where(mine)

        async def work(connection: AsyncConnection) -> tuple[list[RowMapping], int]:
            total: int = (await connection.execute(count)).scalar_one()
            return list((await connection.execute(query)).mappings()), total

        rows, total = await self._database.read(work)
        return [_workflow(row) for row in rows], total

    async def delete(self, account: AccountId, name: str) -> bool:
        mine = delete(WORKFLOWS).where(owned_by(WORKFLOWS, account), WORKFLOWS.c.name == name)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(mine)).rowcount > 0

        return await self._database.write(work)

    async def save_run(self, run: WorkflowRun) -> None:
        row = self._run_row(run)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(upsert(connection, WORKFLOW_RUNS), row)

        await self._database.write(work)

    async def get_run(self, account: AccountId, run_id: str) -> WorkflowRun | None:
        found = await self._rows(
            select(WORKFLOW_RUNS).where(owned_by(WORKFLOW_RUNS, account), WORKFLOW_RUNS.c.run_id == run_id)
        )
        return self._run(found[0]) if found else None

    async def unfinished_runs(self) -> Sequence[WorkflowRun]:
        rows = WORKFLOW_RUNS.c
        query = select(WORKFLOW_RUNS).where(rows.completed_at.is_(None)).order_by(rows.created_at, rows.run_id)
        return [self._run(row) for row in await self._rows(query)]

    async def due_webhooks(self, now: datetime, limit: int) -> Sequence[WorkflowRun]:
        rows = WORKFLOW_RUNS.c
        pending = (rows.webhook == WebhookState.PENDING.value, rows.webhook_at <= now)
        query = select(WORKFLOW_RUNS).where(*pending).order_by(rows.webhook_at, rows.run_id).limit(limit)
        return [self._run(row) for row in await self._rows(query)]

    async def next_webhook_at(self) -> datetime | None:
        rows = WORKFLOW_RUNS.c
        pending = rows.webhook == WebhookState.PENDING.value
        query = select(WORKFLOW_RUNS).where(pending).order_by(rows.webhook_at).limit(1)
        found = await self._rows(query)
        return found[0]["webhook_at"] if found else None

    async def delivered(self, run: WorkflowRun) -> None:
        mine = update(WORKFLOW_RUNS).where(owned_by(WORKFLOW_RUNS, run.account), WORKFLOW_RUNS.c.run_id == run.run_id)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(mine.values(_webhook_row(run)))

        await self._database.write(work)

    async def forget_runs(self, completed_before: datetime) -> int:
        old = delete(WORKFLOW_RUNS).where(WORKFLOW_RUNS.c.completed_at < completed_before)

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(old)).rowcount

        return await self._database.write(work)

    async def _rows(self, query: Select[tuple[object, ...]]) -> list[RowMapping]:
        async def work(connection: AsyncConnection) -> list[RowMapping]:
            return list((await connection.execute(query)).mappings())

        return await self._database.read(work)

    def _run_row(self, run: WorkflowRun) -> dict[str, object]:
        answer = None
        if run.answer is not None:
            parts = [run.answer.status, run.answer.headers, run.answer.body.decode("latin-1")]
            answer = self._vault.seal(f"answer of workflow run {run.run_id}", json.dumps(parts))
        url = None
        if run.webhook_url is not None:
            url = self._vault.seal(f"webhook of workflow run {run.run_id}", run.webhook_url)
        return {
            "account": run.account,
            "run_id": run.run_id,
            "workflow": run.workflow,
            "contents": run.contents,
            "sealed_input": self._vault.seal(f"input of workflow run {run.run_id}", json.dumps(run.input)),
            "caller": run.caller,
            "created_at": run.created_at,
            "cancelled": run.cancelled,
            "completed_at": run.completed_at,
            "sealed_answer": answer,
            "error": run.error,
            "error_type": run.error_type,
            "sealed_webhook_url": url,
            **_webhook_row(run),
        }

    def _run(self, row: RowMapping) -> WorkflowRun:
        answer, run_id = None, row["run_id"]
        if row["sealed_answer"] is not None:
            status, headers, body = json.loads(
                self._vault.open(f"answer of workflow run {run_id}", row["sealed_answer"])
            )
            fields = tuple((name, value) for name, value in headers)
            answer = Answer(status=status, headers=fields, body=body.encode("latin-1"))
        sealed = row["sealed_webhook_url"]
        url = None if sealed is None else self._vault.open(f"webhook of workflow run {run_id}", sealed)
        return WorkflowRun(
            account=AccountId(row["account"]),
            run_id=run_id,
            workflow=row["workflow"],
            contents=row["contents"],
            input=json.loads(self._vault.open(f"input of workflow run {run_id}", row["sealed_input"])),
            caller=row["caller"],
            created_at=row["created_at"],
            cancelled=row["cancelled"],
            completed_at=row["completed_at"],
            answer=answer,
            error=row["error"],
            error_type=row["error_type"],
            webhook_url=url,
            webhook=WebhookState(row["webhook"]),
            webhook_attempts=row["webhook_attempts"],
            webhook_at=row["webhook_at"],
        )


def _webhook_row(run: WorkflowRun) -> dict[str, object]:
    return {"webhook": run.webhook.value, "webhook_attempts": run.webhook_attempts, "webhook_at": run.webhook_at}


def _workflow_row(workflow: Workflow) -> dict[str, object]:
    return {
        "account": workflow.account,
        "name": workflow.name,
        "title": workflow.title,
        "contents": workflow.contents,
        "is_public": workflow.is_public,
        "created_at": workflow.created_at,
    }


def _workflow(row: RowMapping) -> Workflow:
    return Workflow(
        account=AccountId(row["account"]),
        name=row["name"],
        title=row["title"],
        contents=row["contents"],
        is_public=row["is_public"],
        created_at=row["created_at"],
    )


def _only_one(name: str) -> AbstractContextManager[None]:
    return explained(taken=f"workflow {name!r} exists already: choose another name, or change that one")
