"""Runs workflows. Each node is a request to the queue, sent once the nodes that it needs have responses.

A run is stored before its caller hears of it. Only the queue stores the progress of its nodes: each node's request has
an Idempotency-Key made from the run and the node, so that the next controller, which starts at the first node, finds
the requests of an earlier one instead of repeating them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

from fal_server.aio.retry import until_stored
from fal_server.aio.tasks import TaskSet, run_to_completion
from fal_server.core.faults import CONTROLLER_FAILED, FailedPrecondition, Fault, NotFound, Unavailable
from fal_server.core.identity import AccountId, AppId, Principal, Scope
from fal_server.core.json_reader import read_json
from fal_server.core.outbound import checked_url
from fal_server.core.queue import Answer, WebhookState
from fal_server.core.revisions import Json
from fal_server.core.workflows import INPUT, Graph, GraphNode, NodeKind, NoSuchValue, WorkflowRun, graph_of, hydrate
from fal_server.live.dispatch import Dispatcher
from fal_server.live.events import ChangeNotifier
from fal_server.ports import Clock
from fal_server.ports.workflows import WorkflowStore
from fal_server.services.queue import Queue
from fal_server.services.submission import CANCELLED, WAS_CANCELLED, Submission, error_answer, idempotency
from fal_server.services.workflows import Workflows

log = logging.getLogger(__name__)
# The queue keeps responses for 24 h after their requests; a longer run could not find those of its first nodes.
_LONGEST = timedelta(hours=23)
_AGAIN_SECONDS = 2.0
_SILENCE_SECONDS = 1.0
_HEADERS = (("host", "localhost"), ("content-type", "application/json"))


class _Failed(Exception):
    """A node failed, and with it the run.

    Args:
        body: the app's response, if any.
    """

    def __init__(self, node: GraphNode, status: int, error_type: str, detail: str, body: bytes | None = None) -> None:
        super().__init__(f"node {node.node_id!r} ({node.app}): {detail}" if node.app else detail)
        self.node, self.status, self.error_type, self.body = node, status, error_type, body


@dataclass(slots=True, eq=False)
class _LiveRun:
    """An uncompleted run, owned by the one controller that works on it."""

    run: WorkflowRun
    requests: dict[str, AppId]  # by id; those in progress
    events: list[Mapping[str, Json]] = field(default_factory=list)
    """The events since this controller works on it, for followers."""
    error_body: bytes | None = None
    """The response of the app whose error ended it."""
    happened: ChangeNotifier = field(default_factory=ChangeNotifier)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    finishing: bool = False
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the row is written, so that a cancellation never overwrites the end."""
    submitting: TaskSet = field(default_factory=lambda: TaskSet(None))
    """Requests that are being queued, which continues even if the run ends meanwhile."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its end is stored, or left to the next controller."""


class WorkflowRuns:
    """The use cases of workflow calls.

    Owned: the runs in progress, by the one controller that works on them; their rows are written first.

    Attributes:
        webhook_due: notified when a webhook is due.
    """

    def __init__(
        self, store: WorkflowStore, workflows: Workflows, queue: Queue, dispatcher: Dispatcher, clock: Clock
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._queue = queue
        self._dispatcher = dispatcher
        self._clock = clock
        self._live: dict[str, _LiveRun] = {}
        self._tasks = TaskSet(log)
        self.webhook_due = ChangeNotifier()

    async def load(self) -> None:
        """Continue an earlier controller's runs, once at startup. The queue was loaded before."""
        runs = await self._store.unfinished_runs()
        queued = self._queue.by_idempotency() if runs else {}
        for run in runs:
            # A run that is cancelled before it reaches a node also cancels the node's earlier request.
            keys = (idempotency(submission) for submission in self._submissions(run))
            earlier = [queued[key] for key in keys if key and key in queued]
            self._begin(run, {request.request_id: request.app_id for request in earlier})

    async def close(self) -> None:
        """Leave the runs in progress to the next controller."""
        await self._tasks.close()

    async def start(self, caller: Principal, name: str, value: Json, *, webhook_url: str | None = None) -> WorkflowRun:
        """Accept a call of a workflow. When this returns, it is stored and will be completed.

        Args:
            webhook_url: called when it is completed.

        Raises:
            InvalidArgument: the webhook's URL is not valid.
            NotFound: there is no such workflow, or no such app that the caller may call; the text names the node.
        """
        if webhook_url is not None:
            checked_url("fal_webhook", webhook_url)
        workflow = await self._workflows.get(caller.scope, name)
        for node in graph_of(workflow.contents).nodes.values():
            if node.kind is NodeKind.RUN and not caller.scope.reaches(self._app_of(node)[0]):
                raise NotFound(f"app {node.app}, which node {node.node_id!r} calls,", "the key does not reach it")
        run = WorkflowRun(
            account=caller.scope.account,
            run_id=str(uuid.uuid4()),
            workflow=workflow.name,
            contents=workflow.contents,
            input=value,
            caller=caller.key_id,
            created_at=self._clock.now(),
            webhook_url=webhook_url,
            webhook=WebhookState.NONE if webhook_url is None else WebhookState.WAITING,
        )
        return await run_to_completion(self._accept(run))

    async def get(self, scope: Scope, name: str, run_id: str) -> WorkflowRun:
        """Return a run of a workflow.

        Raises:
            NotFound: there is no such run, or it has expired.
        """
        live = self._live.get(run_id)
        found = live.run if live is not None else await self._store.get_run(scope.account, run_id)
        if found is None or found.workflow != name or found.account != scope.account:
            raise NotFound(f"request {run_id[:80]!r} of workflow {name[:80]!r}", "it may have expired")
        return found

    async def wait(self, run: WorkflowRun) -> WorkflowRun:
        """Wait until a run is completed, and return it."""
        live = self._live.get(run.run_id)
        if live is not None:
            await live.finished.wait()
        found = await self._store.get_run(run.account, run.run_id)
        return found or run

    async def follow(self, run: WorkflowRun) -> AsyncGenerator[Mapping[str, Json] | None]:
        """Yield the events of a new run, and None after a silence.

        The last event has the output, or the error. If the follower leaves, the run continues.
        """
        live, seen_events = self._live.get(run.run_id), 0
        while live is not None:
            seen = live.happened.count
            for happened in live.events[seen_events:]:
                yield happened
            seen_events = len(live.events)
            if run.run_id not in self._live:
                break
            if await live.happened.wait(seen, _SILENCE_SECONDS) == seen:
                yield None
        ended = await self.wait(run)
        yield _last_event(ended, None if live is None else live.error_body)

    async def cancel(self, scope: Scope, name: str, run_id: str) -> None:
        """Cancel a run. Cancel its waiting nodes, and ask the apps of those in progress to stop.

        Raises:
            NotFound: there is no such run, or it has expired.
            FailedPrecondition: it is completed.
        """
        await self.get(scope, name, run_id)
        live = self._live.get(run_id)
        if live is None or live.finishing:
            raise FailedPrecondition(f"request {run_id} is completed: there is nothing to cancel")
        await run_to_completion(self._mark_cancelled(live))

    async def end_account(self, account: AccountId) -> None:
        """Cancel every run of an account; return when none is left."""
        while mine := [live for live in self._live.values() if live.run.account == account]:
            for live in mine:
                await run_to_completion(self._mark_cancelled(live))
            await asyncio.gather(*(live.finished.wait() for live in mine))

    async def forget(self, age: timedelta) -> int:
        """Delete the runs completed longer ago than this. Return how many were deleted."""
        return await self._store.forget_runs(self._clock.now() - age)

    async def _accept(self, run: WorkflowRun) -> WorkflowRun:
        await self._store.save_run(run)
        self._begin(run, {})
        return run

    async def _mark_cancelled(self, live: _LiveRun) -> None:
        async with live.saving:
            if live.finishing:
                return
            cancelled = replace(live.run, cancelled=True)
            await self._store.save_run(cancelled)
            live.run = cancelled
        live.cancelled.set()

    def _begin(self, run: WorkflowRun, requests: dict[str, AppId]) -> None:
        live = _LiveRun(run, requests)
        if run.cancelled:
            live.cancelled.set()
        self._live[run.run_id] = live
        self._tasks.spawn(self._carry_out(live), name=f"workflow run {run.run_id}")

    async def _carry_out(self, live: _LiveRun) -> None:
        """Run the nodes and store the end. If cancelled, leave the run to the next controller."""
        work = asyncio.create_task(self._nodes(live))
        cancelled = asyncio.create_task(live.cancelled.wait())
        try:
            await asyncio.wait({work, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work})
            raise
        finally:
            cancelled.cancel()
        try:
            async with live.saving:
                ended = self._ended(live, work)
                if ended.webhook is WebhookState.WAITING:
                    ended = replace(ended, webhook=WebhookState.PENDING, webhook_at=ended.completed_at)
                live.finishing = True
                if ended.answer is None or ended.answer.status >= 400:
                    await self._cancel_requests(live)
                await self._store_end(ended)
        except Exception:
            # Waiting callers must not wait forever.
            log.exception("workflow run %s could not be ended; the next controller goes on with it", live.run.run_id)
        del self._live[live.run.run_id]
        live.finished.set()
        live.happened.notify()
        self.webhook_due.notify()

    async def _store_end(self, ended: WorkflowRun) -> None:
        def unforeseen() -> None:
            nonlocal ended
            ended = _broken(ended)

        what = f"the end of workflow run {ended.run_id}"
        await until_stored(what, lambda: self._store.save_run(ended), unforeseen=unforeseen)

    def _tell(self, live: _LiveRun, kind: str, node: GraphNode, **more: Json) -> None:
        live.events.append({"type": kind, "node_id": node.node_id, "app_id": node.app, **more})
        live.happened.notify()

    def _ended(self, live: _LiveRun, work: asyncio.Task[Json]) -> WorkflowRun:
        run = replace(live.run, completed_at=self._clock.now())
        if work.cancelled():
            return replace(run, answer=CANCELLED, error=WAS_CANCELLED, error_type="client_cancelled")
        error = work.exception()
        if error is None:
            fields = (("content-type", "application/json"),)
            return replace(run, answer=Answer(status=200, headers=fields, body=json.dumps(work.result()).encode()))
        if not isinstance(error, _Failed):
            log.error("workflow run %s failed", run.run_id, exc_info=error)
            return _broken(run)
        live.error_body = error.body
        answer = error_answer(error.status, error.error_type, str(error), ("x-fal-workflow-node", error.node.node_id))
        return replace(run, answer=answer, error=str(error), error_type=error.error_type)

    async def _cancel_requests(self, live: _LiveRun) -> None:
        await live.submitting.wait()
        for request_id, app_id in tuple(live.requests.items()):
            try:
                await self._queue.cancel(app_id, request_id)
            except Fault as fault:
                log.info("request %s of workflow run %s: %s", request_id, live.run.run_id, fault.message)

    async def _nodes(self, live: _LiveRun) -> Json:
        """Run every node, independent ones concurrently; return the output."""
        graph = graph_of(live.run.contents)
        values: dict[str, Json] = {INPUT: live.run.input}
        sorter = graph.sorter()
        sorter.prepare()
        under_way: dict[asyncio.Task[Json], str] = {}
        try:
            while sorter.is_active():
                for node_id in sorter.get_ready():
                    step = self._step(live, graph.nodes[node_id], values)
                    under_way[asyncio.create_task(step)] = node_id
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    node_id = under_way.pop(task)
                    values[node_id] = task.result()
                    sorter.done(node_id)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        return _output(graph, values)

    async def _step(self, live: _LiveRun, node: GraphNode, values: Mapping[str, Json]) -> Json:
        """Return the output of a node; a display node has none."""
        try:
            value = hydrate(node.value, values)
        except NoSuchValue as error:
            raise _Failed(node, 422, "bad_request", str(error)) from None
        if node.kind is NodeKind.DISPLAY:
            return None
        if self._clock.now() - live.run.created_at > _LONGEST:
            raise _Failed(node, 504, "request_timeout", f"the workflow did not end within {_LONGEST}")
        try:
            answer = await self._answer(live, node, json.dumps(value, sort_keys=True).encode())
        except Fault as fault:
            raise _Failed(node, 404 if isinstance(fault, NotFound) else 400, "bad_request", fault.message) from None
        if not 200 <= answer.status < 300:
            detail = f"the app answered {answer.status}: {answer.body[:1000].decode(errors='replace')}"
            kind = answer.header("x-fal-error-type") or "internal_error"
            raise _Failed(node, answer.status, kind, detail, answer.body)
        try:
            found: Json = read_json(answer.body)  # type: ignore[assignment]
        except ValueError as error:
            raise _Failed(node, 502, "internal_error", f"the app's answer is not JSON: {error}") from None
        self._tell(live, "completion", node, output=found)
        return found

    async def _answer(self, live: _LiveRun, node: GraphNode, body: bytes) -> Answer:
        """Queue a node's request unless that was done before. Return its response."""
        submission = self._submission(live.run, node, body)
        app_id = submission.app_id
        request_id = ""
        while True:
            try:
                if not request_id:
                    request_id = await asyncio.shield(live.submitting.spawn(self._submit(live, submission)))
                    self._tell(live, "submit", node, request_id=request_id)
                await self._queue.finished(request_id)
                _, answer = await self._queue.result(app_id, request_id)
            except Unavailable as fault:
                log.warning("workflow run %s waits for the database: %s", live.run.run_id, fault.message)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if answer is not None:
                del live.requests[request_id]
                return answer
            await asyncio.sleep(_AGAIN_SECONDS)  # it was given up, and queued again meanwhile

    def _submissions(self, run: WorkflowRun) -> Iterator[Submission]:
        """Yield the submissions of a run's nodes, without bodies. It leaves out those to missing apps."""
        for node in graph_of(run.contents).nodes.values():
            if node.kind is NodeKind.RUN:
                with suppress(NotFound):
                    yield self._submission(run, node, b"")

    def _submission(self, run: WorkflowRun, node: GraphNode, body: bytes) -> Submission:
        """Return the request of a node.

        Raises:
            NotFound: there is no such app.
        """
        app_id, path = self._app_of(node)
        return Submission(
            app_id=app_id,
            path=path,
            headers=_HEADERS,
            body=body,
            caller=run.caller,
            idempotency_key=f"workflow {run.run_id} {node.node_id}",
        )

    async def _submit(self, live: _LiveRun, submission: Submission) -> str:
        request_id = (await self._queue.submit(submission)).request.request_id
        live.requests[request_id] = submission.app_id
        return request_id

    def _app_of(self, node: GraphNode) -> tuple[AppId, str]:
        """Return the app that a node calls, and the path there.

        Raises:
            NotFound: there is no such app.
        """
        owner, name, *path = node.app.split("/", 2)
        app = self._dispatcher.find(owner, name)
        if app is None:
            raise NotFound(f"app {node.app}, which node {node.node_id!r} calls,", "`fal apps list` shows which exist")
        return app.app_id, "/" + "".join(path)


def _broken(run: WorkflowRun) -> WorkflowRun:
    """Return a run as one that ended because the controller failed."""
    return replace(
        run,
        answer=error_answer(500, "internal_error", CONTROLLER_FAILED),
        error=CONTROLLER_FAILED,
        error_type="internal_error",
    )


def _last_event(run: WorkflowRun, error_body: bytes | None) -> Mapping[str, Json]:
    """Return the event of a run's end. Its error has the app's response, if any."""
    if run.answer is None:
        return {"type": "error", "message": "the run has expired"}
    content = run.answer.body if error_body is None else error_body
    try:
        body: Json = read_json(content)  # type: ignore[assignment]
    except ValueError:
        body = content.decode(errors="replace")
    if run.error is None:
        return {"type": "output", "output": body}
    node = run.answer.header("x-fal-workflow-node")
    named: dict[str, Json] = {} if node is None else {"node_id": node}
    return {"type": "error", **named, "message": run.error, "error": {"status": run.answer.status, "body": body}}


def _output(graph: Graph, values: Mapping[str, Json]) -> Json:
    try:
        return hydrate(graph.output, values)
    except NoSuchValue as error:
        output = GraphNode(node_id="output", kind=NodeKind.DISPLAY, app="", value=None, needs=frozenset())
        raise _Failed(output, 422, "bad_request", f"output: {error}") from None
