"""The controller's own paths, as the published client reads them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fal_server.access.permissions import EVERYTHING
from fal_server.core.accounts import RESERVED_NICKNAMES, Account, KnownAccounts
from fal_server.core.faults import NotFound
from fal_server.core.identity import LOCAL, AccountId, Principal, Scope
from fal_server.core.logs import LogEntry, LogLevel, LogPage, LogQuery, LogSource
from fal_server.core.runners import Runner, RunnerState
from fal_server.http.routes.account import AccountRoutes
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.rest import rest_app
from fal_server.http.routes.runners import RunnerRoutes
from fal_server.live.runner_view import RunnerView
from fal_server.services.logs import LogBatch
from tests.fakes.accounts import NoAudit, accounts_of, quotas_of, teams_of
from tests.http.support import App, Keys, Server, echo, runner, running_server

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ADMIN = {"authorization": "Key admin:secret"}


STRANGER = {"authorization": "Key stranger:secret"}
OTHER = AccountId("other")
ACCOUNTS = KnownAccounts(
    [
        Account(nickname="me", user_id="local|1", full_name="Me Myself"),
        Account(id=OTHER, nickname="you", user_id="local|2", full_name="Somebody Else"),
    ]
)


class TwoAccountsKeys(Keys):
    """Keys of an account, and one of another."""

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        if key_id == "stranger":
            return Principal(key_id=key_id, scope=Scope(account=OTHER, permissions=frozenset({EVERYTHING})))
        return await super().authenticate(key_id, secret)


class NoTokens:
    async def uploader(self, token: str) -> None:
        return None


class NoGpus:
    def gpus_by_app(self, scope: Scope) -> dict[str, dict[str, int]]:
        return {}


class Revisions:
    async def metadata(self, scope: Scope, app_name: str) -> dict[str, object]:
        if app_name != "one":
            raise NotFound(f"app {app_name!r}")
        return {"openapi": {"paths": {}}}


class Runners:
    def __init__(self) -> None:
        self.runners: dict[str, Runner] = {}

    async def get(self, scope: Scope, runner_id: str) -> RunnerView:
        try:
            found = self.runners[runner_id]
        except KeyError:
            raise NotFound(f"runner {runner_id}") from None
        return RunnerView(
            runner=found, state=found.state, in_flight=0, expires_in_seconds=None, uptime_seconds=0.0, leases=()
        )


def line(sequence: int, at: datetime, message: str = "hello") -> LogEntry:
    return LogEntry(
        account=LOCAL,
        runner_id="r",
        sequence=sequence,
        timestamp=at,
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message=message,
    )


class Logs:
    """Lines in memory; `follow` yields what is put into `live`, until None."""

    def __init__(self, lines: Sequence[LogEntry] = ()) -> None:
        self.lines = list(lines)
        self.live: asyncio.Queue[Sequence[LogEntry] | Exception | None] = asyncio.Queue()
        self.followed: list[tuple[str, datetime | None]] = []
        self.closed = asyncio.Event()

    async def page(self, scope: Scope, query: LogQuery) -> LogPage:
        found = [
            entry
            for entry in self.lines
            if entry.runner_id == query.runner_id
            and (query.since is None or entry.timestamp >= query.since)
            and (query.until is None or entry.timestamp < query.until)
            and (query.search is None or query.search.lower() in entry.message.lower())
        ]
        found.sort(key=lambda entry: (entry.timestamp, entry.sequence), reverse=query.newest_first)
        start = int(query.after or 0)
        part = tuple(found[start : start + query.limit])
        return LogPage(entries=part, cursor=str(start + len(part)), more=start + len(part) < len(found))

    async def follow(self, scope: Scope, query: LogQuery) -> AsyncIterator[LogBatch]:
        assert query.runner_id is not None
        self.followed.append((query.runner_id, query.since))
        try:
            while (batch := await self.live.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                yield LogBatch(entries=tuple(batch), cursor="")
        finally:
            self.closed.set()


class Controller:
    """A server with the real REST application, and a client of it."""

    def __init__(self, h: Server, client: httpx.AsyncClient, logs: Logs, runners: Runners) -> None:
        self.house, self.client, self.logs, self.runners = h, client, logs, runners


@asynccontextmanager
async def controller(lines: Sequence[LogEntry] = ()) -> AsyncGenerator[Controller, None]:
    logs, runners, keys = Logs(lines), Runners(), TwoAccountsKeys()
    guard = Guard(cast("Any", keys), cast("Any", NoTokens()), teams_of(keys, NoTokens(), ACCOUNTS), NoAudit())
    account = AccountRoutes(
        cast("Any", NoGpus()), cast("Any", Revisions()), accounts_of(ACCOUNTS), quotas_of(ACCOUNTS), ACCOUNTS, guard
    )
    routes = [*RunnerRoutes(cast("Any", runners), cast("Any", logs), guard).routes, *account.routes]
    rest = rest_app(guard=guard, accounts=ACCOUNTS, version="1.2.3", routes=routes)
    async with (
        running_server(rest=rest) as h,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{h.port}", timeout=20, trust_env=False) as client,
    ):
        yield Controller(h, client, logs, runners)


async def test_a_caller_over_ipv6_is_known_by_address_and_port() -> None:
    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.client} {request.url.hostname}")

    async with (
        running_server(rest=Starlette(routes=[Route("/health", who)]), host="::1") as h,
        httpx.AsyncClient(base_url=f"http://[::1]:{h.port}", timeout=20, trust_env=False) as client,
    ):
        assert (await client.get("/health")).text.startswith("Address(host='::1', port=")


async def test_health_and_the_root_need_no_key() -> None:
    async with controller() as c:
        answer = await c.client.get("/health")
        assert answer.status_code == 200
        assert answer.json() == {"status": "ok", "version": "1.2.3"}
        assert answer.headers["date"].endswith(" GMT")
        assert uuid.UUID(answer.headers["x-fal-request-id"])
        root = (await c.client.get("/")).json()
        assert root["version"] == "1.2.3"
        assert "owner" not in root
        assert "owner" not in (await c.client.get("/", headers={"authorization": "Key wrong:secret"})).json()


@pytest.mark.parametrize(("headers", "owner"), [(ADMIN, "me"), (STRANGER, "you")])
async def test_the_root_names_the_account_of_the_key(headers: dict[str, str], owner: str) -> None:
    async with controller() as c:
        assert (await c.client.get("/", headers=headers)).json()["owner"] == owner
        assert (await c.client.head("/health")).content == b""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/current"),
        ("GET", "/runners/r"),
        ("POST", "/logs/history?job_id=r"),
        ("POST", "/logs/stream?job_id=r"),
    ],
)
async def test_all_else_needs_one_that_may_read(method: str, path: str) -> None:
    async with controller() as c:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Key admin:wrong"}, 401),
            ({"authorization": "Basic eDp5"}, 401),
            ({"authorization": "Key good:secret"}, 403),
        ):
            answer = await c.client.request(method, path, headers=headers)
            assert answer.status_code == status
            assert answer.json()["detail"]
        assert "Insufficient permissions" in answer.json()["detail"]


async def test_the_current_user() -> None:
    async with controller() as c:
        user = (await c.client.get("/users/current", headers=ADMIN)).json()
        wanted = {
            "full_name": "Me Myself", "nickname": "me", "user_id": "local|1", "is_personal": True, "is_locked": False
        }  # fmt: skip
        assert wanted.items() <= user.items()
        assert user["quotas"]["runners"] == {"limit": None, "used": 0}
        assert user["quotas"]["queued_requests"] == {"limit": 100_000, "used": 0}
        assert user["quotas"]["requests_per_second"] == {"limit": None, "used": None}
        stranger = (await c.client.get("/users/current", headers=STRANGER)).json()
        assert (stranger["nickname"], stranger["user_id"]) == ("you", "local|2")


async def test_an_apps_metadata() -> None:
    async with controller() as c:
        for owner in ("me", "local|1"):
            answer = await c.client.get(f"/applications/{owner}/one/metadata", headers=ADMIN)
            assert answer.json() == {"openapi": {"paths": {}}}
        for path in ("/applications/me/none/metadata", "/applications/you/one/metadata"):
            missing = await c.client.get(path, headers=ADMIN)
            assert (missing.status_code, "not found" in missing.json()["detail"]) == (404, True)
        assert (await c.client.get("/applications/me/one/metadata")).status_code == 401
        assert (await c.client.get("/applications/you/one/metadata", headers=STRANGER)).status_code == 200
        others = await c.client.get("/applications/me/one/metadata", headers=STRANGER)
        assert others.json()["detail"].startswith("account 'me' not found: your key is of you")


async def test_a_runner() -> None:
    async with controller() as c:
        of: dict[str, Any] = {
            "app_name": "hello",
            "environment": "main",
            "revision_id": "v",
            "machine_type": "XS",
            "token": "hidden",
        }
        c.runners.runners["r"] = waiting = Runner(account=LOCAL, runner_id="r", created_at=START, **of)
        c.runners.runners["old"] = Runner(
            account=LOCAL,
            runner_id="old",
            created_at=START,
            started_at=START + timedelta(seconds=1),
            ended_at=START + timedelta(seconds=2),
            state=RunnerState.TERMINATED,
            **of,
        )
        answer = await c.client.get("/runners/r", headers=ADMIN)
        assert "hidden" not in answer.text
        got = answer.json()
        assert (got["id"], got["app"], got["state"], got["ended_at"]) == ("r", "hello", "pending", None)
        assert datetime.fromisoformat(got["started_at"]) == waiting.created_at
        got = (await c.client.get("/runners/old", headers=ADMIN)).json()
        assert datetime.fromisoformat(got["started_at"]) == START + timedelta(seconds=1)
        # Lines up to this time are read, including one that was written at the end.
        assert datetime.fromisoformat(got["ended_at"]) == START + timedelta(seconds=2, microseconds=1)
        missing = await c.client.get("/runners/none", headers=ADMIN)
        assert (missing.status_code, missing.json()["detail"]) == (404, "runner none not found")


async def test_history() -> None:
    lines = [line(n, START + timedelta(seconds=n), f"line {n}") for n in range(1, 11)]
    async with controller(lines) as c:
        answer = await c.client.post("/logs/history", params={"job_id": "r", "page_size": "4"}, headers=ADMIN)
        page = answer.json()
        first = page["items"][0]
        assert (first["message"], first["level"], first["source"]) == ("line 10", "INFO", "stdout")
        assert datetime.fromisoformat(first["timestamp"]) == lines[-1].timestamp
        between = {
            "since": (START + timedelta(seconds=3)).isoformat(),
            "until": (START + timedelta(seconds=6)).isoformat().replace("+00:00", "Z"),
        }
        page = (await c.client.post("/logs/history", params={"job_id": "r", **between}, headers=ADMIN)).json()
        assert [item["message"] for item in page["items"]] == ["line 5", "line 4", "line 3"]
        assert page["next_until"] is None
        page = (await c.client.post("/logs/history", params={"job_id": "r", "search": "LINE 1"}, headers=ADMIN)).json()
        assert [item["message"] for item in page["items"]] == ["line 10", "line 1"]
        page = (await c.client.post("/logs/history", params={"job_id": "other"}, headers=ADMIN)).json()
        assert page == {"items": [], "next_until": None}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"job_id": "r", "page_size": "0"},
        {"job_id": "r", "page_size": "many"},
        {"job_id": "r", "page_size": "10001"},
        {"job_id": "r", "page_size": "9" * 5000},
        {"job_id": "r", "since": "yesterday"},
        {"job_id": "r", "until": "2026-99-99"},
    ],
)
async def test_a_wrong_question_about_logs(params: dict[str, str]) -> None:
    async with controller() as c:
        answer = await c.client.post("/logs/history", params=params, headers=ADMIN)
        assert answer.status_code == 400
        assert "give" in answer.json()["detail"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(1, 7))
def test_paging_gives_every_line_once(times: list[int], size: int) -> None:
    """Even if many lines have the same time."""
    lines = [line(n, START + timedelta(microseconds=at)) for n, at in enumerate(sorted(times), 1)]

    async def read() -> list[int]:
        got: list[int] = []
        async with controller(lines) as c:
            params = {"job_id": "r", "page_size": str(size)}
            while True:
                page = (await c.client.post("/logs/history", params=params, headers=ADMIN)).json()
                got += [item["sequence"] for item in page["items"]]
                if page["next_until"] is None:
                    return got
                params["until"] = page["next_until"]

    assert asyncio.run(read()) == list(range(len(lines), 0, -1))


async def events(answer: httpx.Response) -> AsyncIterator[str]:
    """Yield the events of a stream."""
    text = ""
    async for part in answer.aiter_text():
        text += part
        while "\n\n" in text:
            event, _, text = text.partition("\n\n")
            yield event


async def test_following() -> None:
    async with controller() as c:
        params = {"job_id": "r", "since": START.isoformat()}
        async with c.client.stream("POST", "/logs/stream", params=params, headers=ADMIN) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            got = events(answer)
            await c.logs.live.put([line(1, START, "one\ntwo"), line(2, START)])
            first = await anext(got)
            assert json.loads(first.removeprefix("data: "))["message"] == "one\ntwo"
            assert json.loads((await anext(got)).removeprefix("data: "))["sequence"] == 2
            await c.logs.live.put([line(3, START)])
            assert json.loads((await anext(got)).removeprefix("data: "))["sequence"] == 3
            await c.logs.live.put(None)
            assert [event async for event in got] == []
        assert c.logs.followed == [("r", START)]


async def test_a_fault_while_following_is_an_event() -> None:
    async with controller() as c:
        await c.logs.live.put(NotFound("the\nrunner r"))
        async with c.client.stream("POST", "/logs/stream", params={"job_id": "r"}, headers=ADMIN) as answer:
            assert [event async for event in events(answer)] == ["event: error\ndata: the runner r not found"]


async def test_followers_do_not_hold_up_the_end() -> None:
    async with controller() as c:
        async with c.client.stream("POST", "/logs/stream", params={"job_id": "r"}, headers=ADMIN) as answer:
            await c.logs.live.put([line(1, START)])
            got = events(answer)
            await anext(got)
            await c.house.listener.close(30)
            assert [event async for event in got] == []
        await c.logs.closed.wait()


async def test_a_follower_that_leaves_is_let_go() -> None:
    async with controller() as c:
        async with c.client.stream("POST", "/logs/stream", params={"job_id": "r"}, headers=ADMIN) as answer:
            await c.logs.live.put([line(1, START)])
            await anext(events(answer))
        await c.logs.closed.wait()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/logs/history", 405),
        ("POST", "/health", 405),
        ("GET", "/users/nobody", 404),
        ("GET", "/health/", 404),
        ("GET", "/%75sers/current", 401),
    ],
)
async def test_other_paths(method: str, path: str, status: int) -> None:
    async with controller() as c:
        answer = await c.client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["detail"]


async def test_reserved_words_are_never_an_owner() -> None:
    async with controller() as c, runner(echo) as port:
        c.house.ledger.add(App("current"), port)
        assert (await c.client.get("/me/current")).status_code == 200
        for owner in RESERVED_NICKNAMES:
            answer = await c.client.get(f"/{owner}/current")
            assert "x-app" not in answer.headers
            assert answer.status_code in {401, 404, 405}
