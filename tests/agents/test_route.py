"""The route /v1/mcp/platform in one process. It covers admission, what tools forward, and reports of routes' errors."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fal_server.core.accounts import Account, KnownAccounts
from fal_server.core.faults import NotFound
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.mcp import McpRoutes
from fal_server.http.routes.rest import rest_app
from tests.fakes.accounts import NoAudit, teams_of
from tests.http.support import Keys, running_server

ADMIN = {"authorization": "Key admin:secret"}
CALLER = {"authorization": "Key good:secret"}
ACCOUNTS = KnownAccounts([Account(nickname="me", user_id="local|1")])
LARGE = 9 * 1024 * 1024


class NoTokens:
    async def uploader(self, token: str) -> None:
        return None


class StoppedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


async def apps(request: Request, caller: Principal) -> Response:
    return JSONResponse({"key": caller.key_id, "query": str(request.query_params), "headers": dict(request.headers)})


async def revisions(request: Request, caller: Principal) -> Response:
    raise NotFound("app 'x'", "there is none")


async def read(request: Request, caller: Principal) -> Response:
    if request.path_params["path"] == "large":
        return PlainTextResponse("x" * LARGE)
    return PlainTextResponse(f"{request.path_params['path']} {request.headers['range']}")


async def refuse(request: Request) -> Response:
    """Answer as the contract over HTTP, without any permission."""
    if request.path_params["method"] == "GetCaller":
        return JSONResponse({"code": "unavailable", "message": "the controller is stopping"}, 503)
    return PlainTextResponse("<html>", 502)


async def describe(request: Request) -> Response:
    return JSONResponse({"paths": {}})


@asynccontextmanager
async def serving(*, writes: bool = True) -> AsyncGenerator[httpx.AsyncClient]:
    keys = Keys()
    guard = Guard(cast("Any", keys), cast("Any", NoTokens()), teams_of(keys, NoTokens(), ACCOUNTS), NoAudit())
    routes = [
        guard.route("GET", "/v1/serverless/apps", apps),
        guard.route("GET", "/v1/serverless/apps/{owner}/{app}/revisions", revisions),
        guard.route("GET", "/v1/serverless/files/file/{path:path}", read),
        guard.open_route("POST", "/fal.v1.{service}/{method}", refuse),
        guard.open_route("GET", "/openapi.json", describe),
        *McpRoutes(guard, cast("Any", StoppedClock()), "1", writes=writes).routes,
    ]
    rest = rest_app(guard=guard, accounts=ACCOUNTS, version="1", routes=routes)
    async with (
        running_server(rest=rest, more=["fal.v1.Keys", "fal.v1.Runners"]) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=None, trust_env=False) as client,
    ):
        yield client


async def post(client: httpx.AsyncClient, method: str, params: object, headers: dict[str, str]) -> httpx.Response:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    accepted = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    return await client.post("/v1/mcp/platform", json=body, headers={**headers, **accepted})


async def told(
    client: httpx.AsyncClient, tool: str, headers: dict[str, str] = ADMIN, **arguments: object
) -> tuple[bool, str]:
    answer = await post(client, "tools/call", {"name": tool, "arguments": arguments}, headers)
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    (content,) = result["content"]
    return result.get("isError", False), content["text"]


async def test_a_tool_asks_as_its_caller() -> None:
    async with serving() as client:
        headers = {**ADMIN, "x-fal-user-id": "local|1", "cookie": "a=b", "x-other": "no"}
        failed, text = await told(client, "list_apps", headers, search="a b&c", expand=["endpoints"])
        assert not failed
        answer = json.loads(text)
        assert answer["as_of"] == "2026-01-01T00:00:00+00:00"
        seen = answer["result"]
        assert (seen["key"], seen["query"]) == ("admin", "search=a+b%26c&expand=endpoints")
        passed = seen["headers"]
        assert (passed["fal-user-id"], passed["x-fal-user-id"]) == ("local|1", "local|1")
        assert not {"cookie", "x-other", "content-length", "mcp-protocol-version"} & set(passed)


async def test_parts_of_files_are_asked_for() -> None:
    async with serving() as client:
        _, text = await told(client, "read_file", path="/data/a b/c%2F.txt", offset=10)
        assert json.loads(text)["result"]["text"] == "data/a b/c%2F.txt bytes=10-49161"
        assert await told(client, "read_file", path="large") == (
            True,
            "Error 413: the answer is larger than 8 MiB: ask for less",
        )


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("list_revisions", {"endpoint_id": "me/x"}, "Error 404: app 'x' not found: there is none"),
        ("get_current_state", {"endpoint_id": "me/x"}, "Error 503: the controller is stopping"),
        ("kill_runner", {"runner_id": "x"}, "Error 502: the controller answered 502"),
        ("get_usage", {}, "Error 404: page not found"),
    ],
)
async def test_an_error_of_a_route_is_an_error_of_the_tool(tool: str, arguments: dict[str, Any], text: str) -> None:
    async with serving() as client:
        failed, said = await told(client, tool, **arguments)
        assert failed
        assert said.startswith(text)


async def test_a_tool_needs_what_its_route_needs() -> None:
    async with serving() as client:
        failed, text = await told(client, "list_apps", CALLER)
        assert (failed, "Error 403: Insufficient permissions" in text) == (True, True)
        listed = (await post(client, "tools/list", {}, CALLER)).json()["result"]["tools"]
        assert "kill_runner" not in {tool["name"] for tool in listed}
        failed, text = await told(client, "kill_runner", CALLER, runner_id="x")
        assert (failed, "needs serverless:runners:write" in text) == (True, True)


async def test_tools_act_only_where_the_operator_lets_them() -> None:
    async with serving(writes=False) as client:
        _, text = await told(client, "kill_runner", runner_id="x")
        assert "`fal up --mcp-writes`" in text


async def test_who_has_no_key_is_told_nothing_but_the_way() -> None:
    async with serving() as client:
        for headers in ({}, {"authorization": "Key admin:wrong"}):
            answer = await post(client, "tools/list", {}, headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authorization_error")
        guide = await client.get("/llms.txt")
        assert guide.headers["content-type"].startswith("text/plain")
        assert guide.text.startswith("# fal-grpc")
