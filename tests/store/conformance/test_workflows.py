"""Workflows and their runs, in every database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fal_server.core.faults import AlreadyExists
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.queue import Answer, WebhookState
from fal_server.core.workflows import Workflow, WorkflowRun
from fal_server.store import AesVault, SqlStore, open_store
from tests.store import strategies as some

CONTENTS = {"name": "w", "nodes": {}, "output": {"text": "$input.text"}}


def workflow(name: str = "w", **changes: object) -> Workflow:
    made = Workflow(account=LOCAL, name=name, title="W", contents=CONTENTS, is_public=False, created_at=some.START)
    return replace(made, **changes)


def run(run_id: str = "r", **changes: object) -> WorkflowRun:
    made = WorkflowRun(
        account=LOCAL,
        run_id=run_id,
        workflow="w",
        contents=CONTENTS,
        input={"text": "a secret text"},
        caller="k",
        created_at=some.START,
    )
    return replace(made, **changes)


async def test_a_workflow(store: SqlStore) -> None:
    saved = store.workflows
    await saved.add(workflow())
    with pytest.raises(AlreadyExists, match="'w'"):
        await saved.add(workflow(title="another"))
    assert await saved.get(LOCAL, "w") == workflow()
    assert await saved.get(LOCAL, "v") is None
    assert await saved.get(AccountId("other"), "w") is None
    await saved.add(workflow("v"))
    assert await saved.page(LOCAL, 0, 10) == ([workflow("v"), workflow()], 2)
    assert await saved.page(LOCAL, 1, 1) == ([workflow()], 2)
    assert await saved.page(LOCAL, 2, 1) == ([], 2)
    assert await saved.page(AccountId("other"), 0, 10) == ([], 0)
    assert await saved.replace("w", workflow("u", title="U", is_public=True))
    assert await saved.get(LOCAL, "u") == workflow("u", title="U", is_public=True)
    with pytest.raises(AlreadyExists, match="'v'"):
        await saved.replace("u", workflow("v"))
    assert not await saved.replace("w", workflow("w"))
    assert not await saved.delete(AccountId("other"), "u")
    assert await saved.delete(LOCAL, "u")
    assert not await saved.delete(LOCAL, "u")


async def test_a_run(store: SqlStore) -> None:
    saved = store.workflows
    later = run("later", created_at=some.later(1))
    for each in (later, run()):
        await saved.save_run(each)
    assert await saved.unfinished_runs() == [run(), later]
    assert await saved.get_run(LOCAL, "r") == run()
    assert await saved.get_run(AccountId("other"), "r") is None
    answer = Answer(status=200, headers=(("content-type", "a/b"),), body=b"\x00\xff")
    ended = run(cancelled=True, completed_at=some.later(5), answer=answer, error="e", error_type="t")
    await saved.save_run(ended)
    assert await saved.get_run(LOCAL, "r") == ended
    assert await saved.unfinished_runs() == [later]
    assert await saved.forget_runs(some.later(5)) == 0
    assert await saved.forget_runs(some.later(6)) == 1
    assert await saved.get_run(LOCAL, "r") is None


async def test_webhooks_of_runs_are_due_one_after_the_other(store: SqlStore) -> None:
    saved = store.workflows
    url = "http://example.test/hook"
    waiting = run("waiting", webhook_url=url, webhook=WebhookState.WAITING)
    pending = [
        run(f"p{n}", webhook_url=url, webhook=WebhookState.PENDING, webhook_at=some.later(n), completed_at=some.START)
        for n in (2, 1)
    ]
    for each in (waiting, run("none"), *pending):
        await saved.save_run(each)
    assert await saved.get_run(LOCAL, "waiting") == waiting
    assert await saved.next_webhook_at() == some.later(1)
    assert await saved.due_webhooks(some.START, 5) == []
    assert [each.run_id for each in await saved.due_webhooks(some.later(2), 5)] == ["p1", "p2"]
    assert [each.run_id for each in await saved.due_webhooks(some.later(2), 1)] == ["p1"]
    tried = replace(pending[1], webhook_attempts=1, webhook_at=some.later(9))
    await saved.delivered(tried)
    assert await saved.get_run(LOCAL, "p1") == tried
    await saved.delivered(replace(pending[0], webhook=WebhookState.DELIVERED, webhook_at=None))
    assert await saved.next_webhook_at() == some.later(9)
    await saved.delivered(run("gone", webhook=WebhookState.FAILED))
    assert await saved.get_run(LOCAL, "gone") is None


async def test_what_goes_into_a_run_and_comes_out_is_sealed(
    durable: Path | str | None, contents: Callable[[], bytes]
) -> None:
    store = await open_store(durable, AesVault(bytes(range(32))))
    await store.workflows.save_run(
        run(
            answer=Answer(status=200, body=b"a secret answer"),
            completed_at=some.START,
            webhook_url="http://example.test/a secret path",
        )
    )
    await store.close()
    found = contents()
    assert b"workflow_runs" in found
    assert b"a secret" not in found
