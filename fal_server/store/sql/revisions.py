"""Revisions in the database; the configurations of their environments are sealed."""

from __future__ import annotations

import json
from dataclasses import asdict

from sqlalchemy import RowMapping, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.identity import AccountId, Accounts
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, HealthMethod, Payload, Revision
from fal_server.ports import Vault
from fal_server.store.sql.apps import scaling_from
from fal_server.store.sql.database import explained
from fal_server.store.sql.tables import REVISIONS, owned_by


def to_row(revision: Revision, vault: Vault) -> dict[str, object]:
    specs = [[spec.kind, spec.configuration] for spec in revision.environments]
    return {
        "account": revision.account,
        "revision_id": revision.revision_id,
        "app_name": revision.app_name,
        "environment": revision.environment,
        "created_at": revision.created_at,
        "sealed_environments": vault.seal(_context(revision.revision_id), json.dumps(specs)),
        "function": revision.function and asdict(revision.function),
        "entrypoint": revision.entrypoint,
        "setup": revision.setup and asdict(revision.setup),
        "run_on_main_thread": revision.run_on_main_thread,
        "exposed_port": revision.exposed_port,
        "metrics_port": revision.metrics_port,
        "num_gpus": revision.num_gpus,
        "files": [[file.hash, file.relative_path] for file in revision.files],
        "secret_names": None if revision.secret_names is None else list(revision.secret_names),
        "scaling": asdict(revision.scaling),
        "health_check": revision.health_check and asdict(revision.health_check),
        "termination_grace_seconds": revision.termination_grace_seconds,
        "private_logs": revision.private_logs,
        "retry_config": revision.retry_config,
        "skip_retry_conditions": list(revision.skip_retry_conditions),
        "metadata": dict(revision.metadata),
        "source_code": revision.source_code,
    }


def from_row(row: RowMapping, vault: Vault) -> Revision:
    """Return a row as a revision.

    Raises:
        Unavailable: the vault cannot decrypt it.
    """
    specs = json.loads(vault.open(_context(row["revision_id"]), row["sealed_environments"]))
    return Revision(
        account=AccountId(row["account"]),
        revision_id=row["revision_id"],
        app_name=row["app_name"],
        environment=row["environment"],
        created_at=row["created_at"],
        environments=tuple(
            EnvironmentSpec(kind=kind, configuration=value, account=AccountId(row["account"])) for kind, value in specs
        ),
        function=_payload(row["function"]),
        entrypoint=row["entrypoint"],
        setup=_payload(row["setup"]),
        run_on_main_thread=row["run_on_main_thread"],
        exposed_port=row["exposed_port"],
        metrics_port=row["metrics_port"],
        num_gpus=row["num_gpus"],
        files=tuple(AppFile(hash=content, relative_path=path) for content, path in row["files"]),
        secret_names=None if row["secret_names"] is None else tuple(row["secret_names"]),
        scaling=scaling_from(row["scaling"]),
        health_check=_health_check(row),
        termination_grace_seconds=row["termination_grace_seconds"],
        private_logs=row["private_logs"],
        retry_config=row["retry_config"],
        skip_retry_conditions=tuple(row["skip_retry_conditions"]),
        metadata=row["metadata"],
        source_code=row["source_code"],
    )


async def add(connection: AsyncConnection, revision: Revision, vault: Vault) -> None:
    """Insert a revision.

    Raises:
        AlreadyExists: a revision has this id.
    """
    with explained(taken=f"revision {revision.revision_id!r} exists already: a revision never changes"):
        await connection.execute(insert(REVISIONS), to_row(revision, vault))


async def get(connection: AsyncConnection, account: Accounts, revision_id: str, vault: Vault) -> Revision | None:
    """Return one revision, or None."""
    query = select(REVISIONS).where(owned_by(REVISIONS, account), REVISIONS.c.revision_id == revision_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else from_row(row, vault)


async def list_all(
    connection: AsyncConnection, account: Accounts, app_name: str | None, environment: str | None, vault: Vault
) -> list[Revision]:
    """Return revisions, newest first."""
    query = select(REVISIONS).where(owned_by(REVISIONS, account))
    query = query.order_by(REVISIONS.c.created_at.desc(), REVISIONS.c.revision_id.desc())
    if app_name is not None:
        query = query.where(REVISIONS.c.app_name == app_name)
    if environment is not None:
        query = query.where(REVISIONS.c.environment == environment)
    return [from_row(row, vault) for row in (await connection.execute(query)).mappings()]


async def page(connection: AsyncConnection, account: Accounts, after: str, limit: int, vault: Vault) -> list[Revision]:
    """Return the next revisions by id."""
    query = select(REVISIONS).where(owned_by(REVISIONS, account), REVISIONS.c.revision_id > after)
    query = query.order_by(REVISIONS.c.revision_id).limit(limit)
    return [from_row(row, vault) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, account: Accounts, revision_id: str) -> bool:
    """Delete a revision; return False if it does not exist.

    Raises:
        FailedPrecondition: an app serves it or is moving to it.
    """
    with explained(missing=f"revision {revision_id!r} is in use by an app: move the app to another revision first"):
        mine = delete(REVISIONS).where(owned_by(REVISIONS, account), REVISIONS.c.revision_id == revision_id)
        result = await connection.execute(mine)
    return result.rowcount > 0


def _context(revision_id: str) -> str:
    return f"revision/{revision_id}/environments"


def _payload(stored: dict[str, str] | None) -> Payload | None:
    return None if stored is None else Payload(method=stored["method"], blob=stored["blob"])


def _health_check(row: RowMapping) -> HealthCheck | None:
    stored = row["health_check"]
    if stored is None:
        return None
    return HealthCheck(
        path=stored["path"],
        start_period_seconds=stored["start_period_seconds"],
        timeout_seconds=stored["timeout_seconds"],
        failure_threshold=stored["failure_threshold"],
        call_regularly=stored["call_regularly"],
        allow_on_busy=stored["allow_on_busy"],
        method=HealthMethod(stored["method"]),
    )
