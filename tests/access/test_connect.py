"""The contract over HTTP. Every unary method answers as gRPC does, with the same faults for the same callers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from jsonschema import Draft202012Validator

from fal_server.core.accounts import Account, KnownAccounts
from fal_server.grpc.permissions import METHOD_PERMISSIONS
from fal_server.grpc.unary_calls import UNARY
from fal_server.http.routes.connect import MOST_BYTES, ConnectRoutes
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.rest import rest_app
from tests.fakes.accounts import NoAudit, teams_of
from tests.grpc.calls import answers
from tests.grpc.conftest import Stack
from tests.http.support import running_server

ACCOUNTS = KnownAccounts([Account()])
JSON = {"content-type": "application/json"}
PROTO = {"content-type": "application/proto"}
# The statuses of the protocol, for the codes that methods answer with here.
STATUSES = {
    "invalid_argument": 400, "failed_precondition": 400, "unauthenticated": 401, "permission_denied": 403,
    "not_found": 404, "already_exists": 409, "resource_exhausted": 429, "internal": 500, "unimplemented": 501,
    "unavailable": 503,
}  # fmt: skip


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncGenerator[httpx.AsyncClient]:
    guard = Guard(
        stack.access, stack.services.tokens, teams_of(stack.access, stack.services.tokens, ACCOUNTS), NoAudit()
    )
    calls = stack.server.unary_calls
    rest = rest_app(guard=guard, accounts=ACCOUNTS, version="1", routes=ConnectRoutes(calls, guard).routes)
    more = {path.split("/")[1] for path in calls.paths}
    async with (
        running_server(rest=rest, more=more) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False) as client,
    ):
        yield client


def authorization(key: tuple[str, str] | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Key {key[0]}:{key[1]}"}


async def over_grpc(stack: Stack, path: str, data: bytes, key: tuple[str, str] | None) -> tuple[str, str, bytes]:
    metadata = () if key is None else (("auth-key-id", key[0]), ("auth-key", key[1]))
    try:
        (answer,) = await answers(stack.channel, UNARY[path], data, metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name.lower(), error.details() or "", b""
    return "ok", "", answer


@pytest.mark.parametrize("who", ["admin", "api", "nobody", "wrong"])
async def test_every_unary_method_answers_as_grpc_does(stack: Stack, who) -> None:
    key = {"admin": stack.admin, "api": stack.api, "nobody": None, "wrong": (stack.admin[0], "x")}[who]
    seen = set()
    async with client_of(stack) as client:
        for path, method in UNARY.items():
            code, message, answer = await over_grpc(stack, path, b"", key)
            got = await client.post(path, content=b"{}", headers=JSON | authorization(key))
            raw = await client.post(path, content=b"", headers=PROTO | authorization(key))
            seen.add(code)
            if code == "ok":
                assert (got.status_code, raw.status_code) == (200, 200), (path, got.text)
                kind = GetMessageClass(method.output_type)
                shown = json_format.ParseDict(got.json(), kind())
                # A repeated call creates a thing with another id and time.
                names = {field.name for field, _ in kind.FromString(answer).ListFields()}
                assert {field.name for field, _ in shown.ListFields()} == names, path
                assert {field.name for field, _ in kind.FromString(raw.content).ListFields()} == names, path
                continue
            for one in (got, raw):
                said = one.json()
                assert (said["code"], one.status_code) == (code, STATUSES[code]), path
                if code != "internal":  # its message contains the call's id
                    assert said["message"] == message, path
                (info,) = [each for each in said["details"] if each["type"] == "google.rpc.ErrorInfo"]
                read = ErrorInfo.FromString(base64.b64decode(info["value"] + "=="))
                assert (read.domain, read.reason.lower()) == ("fal.v1", code)
    assert seen >= {"admin": {"ok", "not_found"}, "api": {"ok", "permission_denied"}}.get(who, {"unauthenticated"})


async def test_an_answer_is_the_same_message(stack: Stack) -> None:
    async with client_of(stack) as client:
        headers = JSON | authorization(stack.admin)
        made = await client.post("/fal.v1.Environments/CreateEnvironment", json={"name": "dev"}, headers=headers)
        assert made.status_code == 200, made.text
        assert made.headers["content-type"] == "application/json"
        path = "/fal.v1.Environments/ListEnvironments"
        _, _, answer = await over_grpc(stack, path, b"", stack.admin)
        shown = (await client.post(path, json={}, headers=headers)).json()
        kind = GetMessageClass(UNARY[path].output_type)
        assert shown == json_format.MessageToDict(kind.FromString(answer))
        again = await client.post("/fal.v1.Environments/CreateEnvironment", json={"name": "dev"}, headers=headers)
        assert (again.status_code, again.json()["code"]) == (409, "already_exists")


async def test_what_it_changes_is_recorded_with_where_it_came_from(stack: Stack) -> None:
    async with client_of(stack) as client:
        headers = JSON | authorization(stack.admin)
        body = {"name": "A", "value": "hunter2"}
        assert (await client.post("/fal.v1.Secrets/SetSecret", json=body, headers=headers)).status_code == 200
        rows = (await client.post("/fal.v1.Audit/ListAuditEntries", json={}, headers=headers)).json()["entries"]
    assert (rows[0]["action"], rows[0]["target"]) == ("Secrets.SetSecret", "name=A, value=set")
    assert rows[0]["source"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("path", "body", "more", "status", "code"),
    [
        ("/fal.v1.Runners/WatchRunners", b"{}", {}, 501, "unimplemented"),
        ("/fal.v1.Runners/Nothing", b"{}", {}, 404, "unimplemented"),
        ("/fal.v1.Runners/GetRunner", b"{", {}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b"[]", {}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b'{"runner_idd": "x"}', {}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b'{"runner_id": 1}', {}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b'{"a":' * 100_000, {}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b"\xff\xff", PROTO, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b"{}", {"connect-protocol-version": "2"}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b"{}", {"content-encoding": "gzip"}, 501, "unimplemented"),
        ("/fal.v1.Runners/GetRunner", b"{}", {"connect-timeout-ms": "x"}, 400, "invalid_argument"),
        ("/fal.v1.Runners/GetRunner", b"{}", {"connect-timeout-ms": "0"}, 504, "deadline_exceeded"),
        ("/fal.v1.Runners/GetRunner", b" " * (MOST_BYTES + 1), {}, 429, "resource_exhausted"),
    ],
)
async def test_what_cannot_be_called_is_refused(stack: Stack, path, body, more, status, code) -> None:
    async with client_of(stack) as client:
        answer = await client.post(path, content=body, headers=JSON | authorization(stack.admin) | more)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]


async def test_another_content_type_is_told_which_are_read(stack: Stack) -> None:
    async with client_of(stack) as client:
        answer = await client.post("/fal.v1.Keys/GetCaller", content=b"a=1", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.headers["accept-post"]) == (415, "application/json, application/proto")


async def test_the_description_has_every_unary_method_and_fits_its_answers(stack: Stack) -> None:
    async with client_of(stack) as client:
        described = (await client.get("/openapi.json")).json()
        assert set(described["paths"]) == set(UNARY)
        for path, item in described["paths"].items():
            needed = METHOD_PERMISSIONS[path[1:].replace("/", ".")]
            assert needed in item["post"]["summary"]
            answer = await client.post(path, json={}, headers=JSON | authorization(stack.admin))
            which = "200" if answer.status_code == 200 else "default"
            schema = item["post"]["responses"][which]["content"]["application/json"]["schema"]
            whole = {**schema, "components": described["components"]}
            assert [error.message for error in Draft202012Validator(whole).iter_errors(answer.json())] == [], path
    assert json.dumps(described).count("$ref") > len(UNARY)
