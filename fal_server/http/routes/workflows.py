"""Workflows over HTTP, in the published clients' form. It publishes, changes and calls them, directly or by queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound
from fal_server.core.identity import Principal
from fal_server.core.queue import State
from fal_server.core.revisions import Json
from fal_server.core.workflows import Workflow, WorkflowRun
from fal_server.http.routes.event_stream import COMMENT, COMMENT_SECONDS, event, event_stream
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.hosts import queue_base
from fal_server.http.routes.parameters import number
from fal_server.http.routes.queue import scheme_of
from fal_server.http.server.errors import HttpError
from fal_server.http.server.json_body import json_object, text_of
from fal_server.services.workflow_runs import WorkflowRuns
from fal_server.services.workflows import Workflows

_ONE = "/workflows/{owner}/{name}"
_QUEUED = "/queue/workflows/{owner}/{name}"
_MOST_ON_A_PAGE = 100


class WorkflowRoutes:
    """The routes of the workflows of a caller's account."""

    def __init__(self, workflows: Workflows, runs: WorkflowRuns, accounts: KnownAccounts, guard: Guard) -> None:
        self._workflows = workflows
        self._runs = runs
        self._accounts = accounts
        self.routes = [
            guard.route("GET", "/workflows/", self._list),
            guard.route("POST", "/workflows/", self._publish),
            guard.route("GET", _ONE, self._get),
            guard.route("PATCH", _ONE, self._change),
            guard.route("DELETE", _ONE, self._delete),
            guard.route("POST", _ONE, self._call),
            guard.route("POST", f"{_ONE}/stream", self._stream),
            guard.route("POST", _QUEUED, self._submit),
            *(
                guard.route(method, f"{_QUEUED}/requests/{{run_id}}{path}{slash}", endpoint)
                for method, path, endpoint in (
                    ("GET", "", self._result),
                    ("GET", "/status", self._status),
                    ("PUT", "/cancel", self._cancel),
                )
                for slash in ("", "/")  # fal_client uses these without one, the published SDK with one
            ),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        page = number(request, "page", usual=1, most=1_000_000)
        size = number(request, "size", usual=50, most=_MOST_ON_A_PAGE)
        found, total = await self._workflows.list(caller.scope, skip=(page - 1) * size, limit=size)
        items = [self._item(each) for each in found]
        return JSONResponse({"items": items, "total": total, "page": page, "size": size, "pages": -(-total // size)})

    async def _publish(self, request: Request, caller: Principal) -> Response:
        body = await json_object(request)
        made = await self._workflows.publish(
            caller.scope,
            text_of(body, "name"),
            title=text_of(body, "title"),
            contents=_contents(body),
            is_public=body.get("is_public") is True,
        )
        return JSONResponse(self._detail(made), status_code=201)

    async def _get(self, request: Request, caller: Principal) -> Response:
        return JSONResponse(self._detail(await self._workflows.get(caller.scope, self._name(request, caller))))

    async def _change(self, request: Request, caller: Principal) -> Response:
        name, body = self._name(request, caller), await json_object(request)
        public = body.get("is_public")
        if public is not None and not isinstance(public, bool):
            raise InvalidArgument("is_public", "is_public is neither true nor false")
        changed = await self._workflows.change(
            caller.scope,
            name,
            new_name=text_of(body, "name") if "name" in body else None,
            title=text_of(body, "title") if "title" in body else None,
            contents=_contents(body) if "contents" in body else None,
            is_public=public,
        )
        return JSONResponse(self._detail(changed), status_code=201)

    async def _delete(self, request: Request, caller: Principal) -> Response:
        await self._workflows.delete(caller.scope, self._name(request, caller))
        return Response(status_code=204)

    async def _call(self, request: Request, caller: Principal) -> Response:
        """Run a workflow and answer when it is completed."""
        name = self._name(request, caller)
        run = await self._runs.start(caller, name, cast("Json", await json_object(request)))
        return _answer(await self._runs.wait(run))

    async def _stream(self, request: Request, caller: Principal) -> Response:
        """Run a workflow and stream its events."""
        run = await self._runs.start(caller, self._name(request, caller), cast("Json", await json_object(request)))
        draining: asyncio.Event = request.scope["state"]["draining"]

        async def events() -> AsyncGenerator[bytes]:
            silent_seconds = 0.0
            async for happened in self._runs.follow(run):
                if happened is not None:
                    yield event(json.dumps(happened))
                if draining.is_set():
                    return
                silent_seconds = 0.0 if happened is not None else silent_seconds + 1
                if silent_seconds >= COMMENT_SECONDS:
                    yield COMMENT
                    silent_seconds = 0.0

        return event_stream(events(), {"x-fal-request-id": run.run_id})

    async def _submit(self, request: Request, caller: Principal) -> Response:
        name = self._name(request, caller)
        value, webhook = cast("Json", await json_object(request)), request.query_params.get("fal_webhook") or None
        run = await self._runs.start(caller, name, value, webhook_url=webhook)
        headers = {"x-fal-request-id": run.run_id}
        return JSONResponse(self._document(request, run) | {"queue_position": 0}, headers=headers)

    async def _status(self, request: Request, caller: Principal) -> Response:
        run = await self._run(request, caller)
        status = 202 if run.state is not State.COMPLETED else 200
        headers = {"x-fal-request-id": run.run_id}
        return JSONResponse(self._document(request, run), status_code=status, headers=headers)

    async def _result(self, request: Request, caller: Principal) -> Response:
        run = await self._run(request, caller)
        if run.answer is None:
            raise HttpError(400, "bad_request", "Request is still in progress: its status_url says how far it is")
        return _answer(run)

    async def _cancel(self, request: Request, caller: Principal) -> Response:
        """Cancel, and answer in the published clients' form."""
        name, run_id = self._name(request, caller), request.path_params["run_id"]
        status, content = 202, {"status": "CANCELLATION_REQUESTED"}
        try:
            await self._runs.cancel(caller.scope, name, run_id)
        except FailedPrecondition as fault:
            status, content = 400, {"status": "ALREADY_COMPLETED", "detail": fault.message}
        except NotFound as fault:
            status, content = 404, {"status": "NOT_FOUND", "detail": fault.message}
        return JSONResponse(content, status_code=status)

    async def _run(self, request: Request, caller: Principal) -> WorkflowRun:
        return await self._runs.get(caller.scope, self._name(request, caller), request.path_params["run_id"])

    def _name(self, request: Request, caller: Principal) -> str:
        """Return the workflow in a path.

        Raises:
            NotFound: the path names another account.
        """
        self._accounts.own(caller.scope.account, request.path_params["owner"])
        name: str = request.path_params["name"]
        return name

    def _item(self, workflow: Workflow) -> dict[str, object]:
        owner = self._accounts.of(workflow.account)
        return {
            "name": workflow.name,
            "title": workflow.title,
            "user_id": owner.user_id,
            "user_nickname": owner.nickname,
            "created_at": workflow.created_at.isoformat(),
        }

    def _detail(self, workflow: Workflow) -> dict[str, object]:
        return {**self._item(workflow), "contents": workflow.contents, "is_public": workflow.is_public}

    def _document(self, request: Request, run: WorkflowRun) -> dict[str, object]:
        """Return a run in the published form of a queued request."""
        base = queue_base(scheme_of(request), request.url.netloc)
        owner = self._accounts.of(run.account).nickname
        url = f"{base}/workflows/{quote(owner)}/{quote(run.workflow)}/requests/{run.run_id}"
        metrics = (
            {} if run.completed_at is None else {"inference_time": (run.completed_at - run.created_at).total_seconds()}
        )
        content: dict[str, object] = {
            "status": run.state.value,
            "request_id": run.run_id,
            "response_url": url,
            "status_url": f"{url}/status",
            "cancel_url": f"{url}/cancel",
            "logs": None,
            "metrics": metrics,
        }
        return content if run.error is None else content | {"error": run.error, "error_type": run.error_type}


def _contents(body: dict[str, object]) -> Mapping[str, Json]:
    contents = body.get("contents")
    if not isinstance(contents, Mapping):
        raise InvalidArgument("contents", "contents is missing from the body, or is not an object")
    return cast("Mapping[str, Json]", contents)


def _answer(run: WorkflowRun) -> Response:
    if run.answer is None:  # it was deleted while its caller waited
        raise NotFound(f"request {run.run_id}", "it has expired")
    return Response(
        run.answer.body, run.answer.status, headers={**dict(run.answer.headers), "x-fal-request-id": run.run_id}
    )
