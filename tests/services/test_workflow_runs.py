"""Runs of workflows over the real queue and store. The answers of apps are fake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound
from fal_server.core.identity import LOCAL, AppId, Principal, Restrictions, Scope
from fal_server.core.queue import Answer, Content, QueuedRequest, WebhookState
from fal_server.core.workflows import WorkflowRun
from fal_server.ports.workflows import WorkflowStore
from fal_server.services.webhooks import RunWebhooks
from fal_server.services.workflow_runs import WorkflowRuns
from fal_server.services.workflows import Workflows
from tests.fakes.domain import SCOPE
from tests.fakes.platform import HANG_SECONDS, Platform
from tests.fakes.queueing import Queueing, queueing

CALLER = Principal(key_id="k", scope=SCOPE)


def node(needs: str = "input", app: str = "me/a", **more: Any) -> dict[str, Any]:
    return {"type": "run", "app": app, "input": {"text": f"${needs}.text", **more}, "depends": []}


CHAIN = {"one": node(), "two": node("one"), "show": {"type": "display", "fields": ["$two.text"], "depends": ["two"]}}


class BreakableRuns:
    """The real store. Storing some ends of runs raises an unexpected error.

    Attributes:
        broken: how many.
    """

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store
        self.broken = 0

    async def save_run(self, run: WorkflowRun) -> None:
        if run.answer is not None and self.broken:
            self.broken -= 1
            raise RuntimeError("nobody foresaw this")
        await self._store.save_run(run)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Running:
    """Workflows over a queue. Its app extends its input's text by one character."""

    def __init__(self, q: Queueing) -> None:
        self.q = q
        self.store = BreakableRuns(q.platform.store.workflows)
        self.workflows = Workflows(q.platform.store.workflows, q.clock)
        self.runs = self.another()

    def another(self) -> WorkflowRuns:
        """Return the workflows of the next controller."""
        store: Any = self.store
        return WorkflowRuns(store, self.workflows, self.q.queue, self.q.platform.dispatcher, self.q.clock)

    @property
    def webhooks(self) -> RunWebhooks:
        return RunWebhooks(self.q.platform.store.workflows, self.q.calls, self.q.clock)

    async def start(
        self, nodes: Any = None, output: Any = None, webhook_url: str | None = None, **value: Any
    ) -> WorkflowRun:
        contents = {"name": "w", "nodes": nodes or CHAIN, "output": output or {"text": "$two.text"}}
        await self.workflows.publish(SCOPE, "w", title="W", contents=contents, is_public=False)
        return await self.runs.start(CALLER, "w", value or {"text": "x"}, webhook_url=webhook_url)

    async def happened(self, run: WorkflowRun) -> list[Any]:
        async with asyncio.timeout(HANG_SECONDS):
            return [event async for event in self.runs.follow(run) if event is not None]

    async def ended(self, run: WorkflowRun, runs: WorkflowRuns | None = None) -> WorkflowRun:
        return await asyncio.wait_for((runs or self.runs).wait(run), HANG_SECONDS)

    def bodies(self) -> list[Any]:
        return [json.loads(content.body) for _, content in self.q.client.sent]


def echoing(client: Any) -> None:
    """Let the app answer with the text that it gets. It appends a `+`."""
    plain = client.send

    async def send(address: RunnerAddress, request: QueuedRequest, content: Content, *rest: Any) -> Any:
        answer = await plain(address, request, content, *rest)
        if answer is not client.usual:
            return answer
        return Answer(status=200, body=json.dumps({"text": json.loads(content.body)["text"] + "+"}).encode())

    client.send = send


@pytest.fixture
async def w(platform: Platform) -> AsyncIterator[Running]:
    await platform.deploy("a", scaling={"max_concurrency": 1, "max_multiplexing": 4})
    async with queueing(platform) as q:
        echoing(q.client)
        found = Running(q)
        yield found
        await found.runs.close()


async def test_each_node_gets_what_earlier_ones_answered(w: Running) -> None:
    run = await w.ended(await w.start())
    assert run.answer is not None
    assert (run.answer.status, run.answer.body, run.error) == (200, b'{"text": "x++"}', None)
    assert w.bodies() == [{"text": "x"}, {"text": "x+"}]
    assert {request.caller for request, _ in w.q.client.sent} == {"k"}


async def test_nodes_that_need_nothing_of_one_another_run_at_once(w: Running) -> None:
    w.q.client.held.clear()
    run = await w.start({"a": node(app="me/a/left"), "b": node(app="me/a/right")}, ["$a.text", "$b.text"])
    await w.q.until(lambda: w.q.client.under_way == 2)
    assert {request.path for request, _ in w.q.client.sent} == {"/left", "/right"}
    w.q.client.held.set()
    ended = await w.ended(run)
    assert ended.answer is not None
    assert ended.answer.body == b'["x+", "x+"]'


async def test_an_error_names_the_node(w: Running) -> None:
    w.q.client.answers = [Answer(status=422, body=b'{"detail": "no"}')]
    run = await w.ended(await w.start())
    assert run.error == 'node \'one\' (me/a): the app answered 422: {"detail": "no"}'
    assert run.answer is not None
    assert (run.answer.status, run.answer.header("x-fal-workflow-node")) == (422, "one")
    assert len(w.q.client.sent) == 1


async def test_a_reference_to_nothing_names_the_node(w: Running) -> None:
    run = await w.ended(await w.start(CHAIN, text2="x"))
    assert run.error == "node 'one' (me/a): $input.text: input has no 'text'"


async def test_what_the_next_controller_does(w: Running) -> None:
    """The first one dies while the second node runs. The first node is not repeated, and nothing is lost."""
    w.q.client.held.clear()
    run = await w.start()
    await w.q.until(lambda: w.q.client.under_way == 1)
    w.q.client.held.set()
    await w.q.until(lambda: len(w.q.client.sent) == 2)
    await w.runs.close()
    following = w.another()
    await following.load()
    ended = await w.ended(run, following)
    assert ended.answer is not None
    assert ended.answer.body == b'{"text": "x++"}'
    assert w.bodies() == [{"text": "x"}, {"text": "x+"}]
    with pytest.raises(FailedPrecondition, match="is completed"):
        await following.cancel(SCOPE, "w", run.run_id)
    await following.close()


@pytest.mark.parametrize("died", [False, True])
async def test_a_cancelled_run(w: Running, died: bool) -> None:
    """An acknowledged cancellation is final. That holds even if the controller dies right after it."""
    w.q.client.held.clear()
    run = await w.start()
    await w.q.until(lambda: w.q.client.under_way == 1)
    cancelling = w.runs.cancel(SCOPE, "w", run.run_id)
    await cancelling
    runs = w.runs
    if died:
        await w.runs.close()
        runs = w.another()
        await runs.load()
    ended = await w.ended(run, runs)
    assert ended.answer is not None
    assert (ended.answer.status, ended.error_type) == (499, "client_cancelled")
    w.q.client.held.set()
    await runs.close()


async def test_a_run_that_is_cancelled_before_its_nodes_start_again(w: Running) -> None:
    """The nodes' requests to an earlier controller are cancelled. No node has found them again yet."""
    w.q.client.on_cancel = lambda: None
    w.q.client.held.clear()
    nodes = {"a": node(app="me/a/left"), "b": node(app="me/a/right"), "gone": {"type": "display", "fields": []}}
    run = await w.start(nodes, ["$a.text", "$b.text"])
    await w.q.until(lambda: w.q.client.under_way == 2)
    await w.runs.close()
    following = w.another()
    await following.load()
    await following.cancel(SCOPE, "w", run.run_id)
    assert (await w.ended(run, following)).error_type == "client_cancelled"
    await w.q.until(lambda: len(w.q.client.told) == 2)
    assert {path for _, path in w.q.client.told} == {"/left", "/right"}
    w.q.client.held.set()
    await following.close()


async def test_an_end_that_cannot_be_stored_for_an_unforeseen_reason_is_an_error(w: Running) -> None:
    w.store.broken = 1
    run = await w.start()
    ended = await w.ended(run)
    assert ended.answer is not None
    assert (ended.answer.status, ended.error_type) == (500, "internal_error")


async def test_what_a_caller_cannot_start(w: Running) -> None:
    with pytest.raises(NotFound, match="workflow 'none' not found"):
        await w.runs.start(CALLER, "none", {})
    with pytest.raises(NotFound, match="app me/gone, which node 'one' calls, not found"):
        await w.start({"one": node(app="me/gone")}, "$one")
    other = Restrictions(apps=frozenset({AppId.parse(LOCAL, "other")}))
    narrow = Principal(key_id="n", scope=Scope(account=LOCAL, permissions=frozenset({"*"}), restrictions=other))
    await w.workflows.change(SCOPE, "w", contents={"nodes": CHAIN, "output": "$two"})
    with pytest.raises(NotFound, match="node 'one'"):
        await w.runs.start(narrow, "w", {"text": "x"})


async def test_a_change_of_a_workflow_does_not_change_its_runs(w: Running) -> None:
    w.q.client.held.clear()
    run = await w.start()
    await w.workflows.change(SCOPE, "w", contents={"nodes": {}, "output": {"text": "new"}}, new_name="w2")
    await w.workflows.delete(SCOPE, "w2")
    w.q.client.held.set()
    ended = await w.ended(run)
    assert ended.answer is not None
    assert ended.answer.body == b'{"text": "x++"}'


async def test_old_runs_are_forgotten(w: Running) -> None:
    run = await w.ended(await w.start())
    assert await w.runs.forget(timedelta(hours=1)) == 0
    w.q.clock.advance(7200)
    assert await w.runs.forget(timedelta(hours=1)) == 1
    with pytest.raises(NotFound):
        await w.runs.get(SCOPE, "w", run.run_id)


async def test_who_follows_a_run_hears_of_each_node_and_of_the_end(w: Running) -> None:
    first, one, second, two, last = await w.happened(await w.start())
    ids = [event.pop("request_id") for event in (first, second)]
    assert len(set(ids)) == 2
    assert first == {"type": "submit", "node_id": "one", "app_id": "me/a"}
    assert one == {"type": "completion", "node_id": "one", "app_id": "me/a", "output": {"text": "x+"}}
    assert (second["node_id"], two["output"]) == ("two", {"text": "x++"})
    assert last == {"type": "output", "output": {"text": "x++"}}


async def test_who_follows_a_run_hears_why_it_failed(w: Running) -> None:
    w.q.client.answers = [Answer(status=422, body=b'{"detail": "no"}')]
    *_, last = await w.happened(await w.start())
    assert (last["type"], last["node_id"], last["error"]["status"]) == ("error", "one", 422)
    assert "the app answered 422" in last["message"]
    assert last["error"]["body"] == {"detail": "no"}


async def test_an_error_without_an_answer_has_the_message_as_its_body(w: Running) -> None:
    run = await w.start()
    await w.runs.cancel(SCOPE, "w", run.run_id)
    *_, last = await w.happened(run)
    assert (last["type"], "node_id" in last, last["error"]["status"]) == ("error", False, 499)
    assert last["error"]["body"]["detail"]


async def test_a_follower_who_leaves_ends_nothing(w: Running) -> None:
    w.q.client.held.clear()
    run = await w.start()
    following = w.runs.follow(run)
    assert await anext(following) is not None
    await following.aclose()
    w.q.client.held.set()
    assert (await w.ended(run)).error is None


async def test_the_end_of_a_run_is_told_to_its_webhook_again_and_again(w: Running) -> None:
    w.q.receivers.answers = [503, 204]
    run = await w.ended(await w.start(webhook_url="http://example.test/hook?token=hush"))
    assert "hush" not in repr(run)
    (due,) = await w.webhooks.due(10)
    assert (await w.webhooks.deliver(due)).error == "the receiver answered 503"
    assert await w.webhooks.due(10) == []
    assert await w.webhooks.seconds_to_next() == 14.0
    w.q.pass_time(14)
    (due,) = await w.webhooks.due(10)
    delivery = await w.webhooks.deliver(due)
    assert (delivery.number, delivery.error) == (2, None)
    assert await w.webhooks.seconds_to_next() is None
    assert (await w.runs.get(SCOPE, "w", run.run_id)).webhook is WebhookState.DELIVERED
    first, second = w.q.receivers.calls
    assert first.url == second.url == "http://example.test/hook?token=hush"
    told = json.loads(second.body)
    assert (told["request_id"], told["status"], told["payload"]) == (run.run_id, "OK", {"text": "x++"})
    assert "x-fal-webhook-signature" in dict(second.headers)


async def test_a_webhook_is_told_of_failures_too(w: Running) -> None:
    w.q.client.answers = [Answer(status=422, body=b'{"detail": "no"}')]
    await w.ended(await w.start(webhook_url="http://example.test/hook"))
    (due,) = await w.webhooks.due(10)
    await w.webhooks.deliver(due)
    told = json.loads(w.q.receivers.calls[0].body)
    assert (told["status"], "node 'one'" in told["error"]) == ("ERROR", True)


async def test_an_address_that_cannot_be_called_is_refused_before_anything_runs(w: Running) -> None:
    with pytest.raises(InvalidArgument, match="fal_webhook"):
        await w.start(webhook_url="ftp://example.test")
    assert w.bodies() == []
