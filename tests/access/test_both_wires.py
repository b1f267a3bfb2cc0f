"""Every route and method enforces its permission, and both wires agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import grpc
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from fal_grpc.errors import BY_HTTP_STATUS
from fal_server.access.permissions import PERMISSIONS, PRESETS
from fal_server.access.tokens import Tokens
from fal_server.core import faults
from fal_server.core.accounts import Account, KnownAccounts
from fal_server.core.identity import LOCAL
from fal_server.core.quotas import usual_quotas
from fal_server.grpc.methods import METHODS
from fal_server.grpc.permissions import METHOD_PERMISSIONS
from fal_server.http.dashboard.app import dashboard_app
from fal_server.http.dashboard.pages import Pages
from fal_server.http.dashboard.sessions import PageGuard, Sessions
from fal_server.http.dashboard.ui import Ui
from fal_server.http.routes.account import AccountRoutes
from fal_server.http.routes.connect import ConnectRoutes
from fal_server.http.routes.documentation import DocumentationRoutes
from fal_server.http.routes.files import AppFileRoutes, FileRoutes
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.mcp import McpRoutes
from fal_server.http.routes.metrics import MetricsRoutes
from fal_server.http.routes.permissions import ROUTE_PERMISSIONS, RUNNERS_SOCKET, Admission
from fal_server.http.routes.platform.apps import PlatformAppRoutes
from fal_server.http.routes.platform.files import PlatformFileRoutes
from fal_server.http.routes.platform.keys import PlatformKeyRoutes
from fal_server.http.routes.platform.logs import PlatformLogRoutes
from fal_server.http.routes.platform.requests import PlatformRequestRoutes
from fal_server.http.routes.queue import QueueRoutes
from fal_server.http.routes.queue_admin import QueueAdminRoutes
from fal_server.http.routes.rest import rest_app
from fal_server.http.routes.runners import RunnerRoutes
from fal_server.http.routes.storage import StorageRoutes
from fal_server.http.routes.tokens import TokenRoutes
from fal_server.http.routes.uploader import Uploader
from fal_server.http.routes.workflows import WorkflowRoutes
from fal_server.http.server.faults import STATUSES, status_of
from fal_server.live.rates import Rates
from tests.fakes.accounts import NoAudit, teams_of
from tests.grpc.calls import answers
from tests.grpc.conftest import Stack

# Routes and methods that do the same.
SAME = {
    ("GET", "/runners/{runner_id}"): "fal.v1.Runners.GetRunner",
    ("POST", "/logs/history"): "fal.v1.Logs.ListLogs",
    ("POST", "/logs/stream"): "fal.v1.Logs.FollowLogs",
    ("GET", "/v1/serverless/apps"): "fal.v1.Apps.ListAliases",
    ("GET", "/v1/serverless/apps/{owner}/{app}/revisions"): "fal.v1.Revisions.ListApplications",
    ("GET", "/v1/serverless/requests/by-endpoint"): "fal.v1.Requests.ListRequests",
    ("GET", "/v1/serverless/analytics"): "fal.v1.Requests.GetRequestStats",
    ("GET", "/v1/keys"): "fal.v1.Keys.ListUserKeys",
    ("DELETE", "/v1/keys/{key_id}"): "fal.v1.Keys.RevokeUserKey",
    ("POST", "/files/missing_hashes"): "fal.v1.Revisions.RegisterApplication",
}
# Those that refuse a caller without a key.
OF_KEYS = (Admission.UPLOADERS, Admission.UPLOADING_KEYS, Admission.CALLERS_OF_THE_ROUTES)
HOLDERS = [*PRESETS.items(), *((permission, (permission,)) for permission in sorted(PERMISSIONS))]

ACCOUNTS = KnownAccounts([Account()])


def guard_of(stack: Stack) -> Guard:
    tokens = Tokens(bytes(32), stack.store, stack.clock, lambda _: LOCAL)
    return Guard(stack.access, tokens, teams_of(stack.access, tokens, ACCOUNTS), NoAudit())


def everything(stack: Stack) -> tuple[Starlette, Uploader, Starlette]:
    """Return all applications with every route. They have no services, so every admitted call fails."""
    nothing: Any = object()
    guard = guard_of(stack)
    routes = [
        *WorkflowRoutes(nothing, nothing, ACCOUNTS, guard).routes,
        *QueueRoutes(nothing, nothing, guard, Rates(usual_quotas)).routes,
        *QueueAdminRoutes(nothing, ACCOUNTS, nothing, guard).routes,
        *StorageRoutes(nothing, nothing, guard, "http://here").routes,
        *TokenRoutes(nothing, guard).routes,
        *MetricsRoutes(nothing, guard).routes,
        *RunnerRoutes(nothing, nothing, guard).routes,
        *AccountRoutes(nothing, nothing, nothing, nothing, ACCOUNTS, guard).routes,
        *AppFileRoutes(nothing, guard).routes,
        *FileRoutes(nothing, guard).routes,
        *DocumentationRoutes(guard).routes,
        *ConnectRoutes(stack.server.unary_calls, guard).routes,
        *PlatformAppRoutes(
            apps=nothing,
            revisions=nothing,
            events=nothing,
            queue=nothing,
            keys=nothing,
            accounts=ACCOUNTS,
            clock=stack.clock,
            guard=guard,
        ).routes,
        *PlatformFileRoutes(nothing, guard).routes,
        *PlatformLogRoutes(nothing, ACCOUNTS, stack.clock, guard).routes,
        *PlatformRequestRoutes(nothing, nothing, nothing, ACCOUNTS, stack.clock, guard).routes,
        *PlatformKeyRoutes(nothing, ACCOUNTS, guard).routes,
        *McpRoutes(guard, stack.clock, "1", writes=True).routes,
    ]
    rest = rest_app(guard=guard, accounts=ACCOUNTS, version="1", routes=routes)
    return rest, Uploader(nothing, guard, "http://here"), dashboard_of(stack)


def dashboard_of(stack: Stack) -> Starlette:
    nothing: Any = object()
    tokens = Tokens(bytes(32), stack.store, stack.clock, lambda _: LOCAL)
    sessions = Sessions(stack.access, stack.clock)
    guard = PageGuard(stack.access, tokens, teams_of(stack.access, tokens, ACCOUNTS), NoAudit(), sessions)
    services = dict.fromkeys((each.name for each in fields(Ui)), nothing)
    return dashboard_app(Ui(**{**services, "pages": Pages(ACCOUNTS, stack.clock, "1")}), guard)


def serving(path: str, everything: tuple[Starlette, Uploader, Starlette]) -> Starlette:
    """Return the application that a path leads to."""
    rest, uploader, dashboard = everything
    if path in {path for _, path in RUNNERS_SOCKET}:
        return uploader.app
    return dashboard if path.startswith("/ui") else rest


def client_of(app: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://here")


async def header_of(stack: Stack, permissions: Sequence[str]) -> dict[str, str]:
    key_id, secret = await stack.keys.create(None, permissions=permissions)
    return {"authorization": f"Key {key_id}:{secret}"}


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path)


def test_the_table_has_every_route_and_no_other(stack: Stack) -> None:
    rest, uploader, dashboard = everything(stack)
    found = {
        (method, route.path)
        for app in (rest, uploader.app, dashboard)
        for route in cast("list[Route]", app.routes)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert found == set(ROUTE_PERMISSIONS)
    assert {needed for needed in ROUTE_PERMISSIONS.values() if isinstance(needed, str)} <= PERMISSIONS


def test_a_route_without_a_row_stops_the_start(stack: Stack) -> None:
    async def never(*_: object) -> Response:
        raise AssertionError("nobody calls it")

    guard = guard_of(stack)
    for make in (guard.route, guard.open_route):
        with pytest.raises(KeyError):
            make("GET", "/new", never)
    with pytest.raises(AssertionError):
        guard.open_route("GET", "/users/current", never)


async def test_every_route_needs_its_permission_and_no_other(stack: Stack) -> None:
    apps = everything(stack)
    for (method, path), needed in ROUTE_PERMISSIONS.items():
        async with client_of(serving(path, apps)) as client:
            if needed in (Admission.CALLERS_OF_THE_APP, Admission.CALLERS_OF_THE_METHOD):
                continue  # rules that depend on the app, or on the method
            enough: Sequence[str] = [needed] if isinstance(needed, str) else ["serverless:files:write"]
            keys = {
                "no key": {},
                "a wrong key": {"authorization": "Key nobody:secret"},
                "the permission": await header_of(stack, enough),
                "all others": await header_of(stack, sorted(PERMISSIONS - {*enough, "serverless:apps:run"})),
            }
            open_to_all = needed is Admission.ANYONE
            wanted = {"no key": 401, "a wrong key": 401, "all others": 403}
            for name, headers in keys.items():
                answer = await client.request(method, filled(path), headers=headers)
                any_key = needed is Admission.CALLERS_OF_THE_ROUTES and name == "all others"
                if open_to_all or any_key or name == "the permission":
                    assert answer.status_code not in (401, 403), (method, path, name)
                else:
                    assert answer.status_code == wanted[name], (method, path, name)


async def test_a_key_is_checked_before_a_byte_of_the_body_is_read(stack: Stack) -> None:
    apps = everything(stack)

    async def receive() -> dict[str, object]:
        raise AssertionError("the body was read")

    for (method, path), needed in ROUTE_PERMISSIONS.items():
        if isinstance(needed, Admission) and needed not in OF_KEYS:
            continue
        sent: list[Message] = []

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": filled(path),
            "raw_path": filled(path).encode(), "query_string": b"", "headers": [(b"content-length", b"1000000")],
            "scheme": "http", "root_path": "", "client": None, "server": ("here", 80), "state": {},
        }  # fmt: skip
        await serving(path, apps)(scope, receive, send)
        assert sent[0]["status"] == 401, (method, path)


def test_the_same_thing_needs_the_same_permission_on_both_wires() -> None:
    assert {ROUTE_PERMISSIONS[route] for route in SAME} == {METHOD_PERMISSIONS[method] for method in SAME.values()}
    for route, method in SAME.items():
        assert ROUTE_PERMISSIONS[route] == METHOD_PERMISSIONS[method]


@pytest.mark.parametrize(("name", "permissions"), HOLDERS, ids=[name for name, _ in HOLDERS])
async def test_both_wires_admit_the_same_keys(stack: Stack, name, permissions) -> None:
    key_id, secret = await stack.keys.create(None, permissions=permissions)
    metadata = (("auth-key-id", key_id), ("auth-key", secret))
    rest, *_ = everything(stack)
    async with client_of(rest) as client:
        for (method, path), rpc in SAME.items():
            answer = await client.request(method, filled(path), headers={"authorization": f"Key {key_id}:{secret}"})
            denied = False
            descriptor = next(found for found in METHODS.values() if found.full_name == rpc)
            try:
                await answers(stack.channel, descriptor, b"", metadata)
            except grpc.aio.AioRpcError as error:
                denied = error.code() is grpc.StatusCode.PERMISSION_DENIED
                words = error.details()
            assert (answer.status_code == 403) == denied, (path, rpc)
            if denied:
                said = answer.json()
                assert (said["error"]["message"] if "error" in said else said["detail"]) == words


def kinds(root: type[faults.Fault]) -> list[type[faults.Fault]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", kinds(faults.Fault), ids=lambda kind: kind.__name__)
def test_the_client_knows_the_status_of_every_fault(kind) -> None:
    assert status_of(kind) in set(STATUSES.values()) <= set(BY_HTTP_STATUS)
    # These share a status with another fault.
    expected = {faults.Aborted: "ALREADY_EXISTS", faults.StartTimedOut: "DEADLINE_EXCEEDED"}.get(kind, kind.reason)
    assert BY_HTTP_STATUS[status_of(kind)].code == expected
