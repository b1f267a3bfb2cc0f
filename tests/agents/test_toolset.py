"""The rules of tools: one table of permissions, single-use plans, limited results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_mcp.acting import acting
from fal_mcp.calls import Call, Refused, contract, file_path, segment
from fal_mcp.discovery import DISCOVERY, reads
from fal_mcp.operations import OPERATIONS
from fal_mcp.plans import LIFE, MOST_OF_ONE, Plans, Prepared
from fal_mcp.platform_tools import READING
from fal_mcp.schemas import arguments
from fal_mcp.tools import MOST_CHARACTERS, Tool, Toolset
from fal_server.grpc.permissions import METHOD_PERMISSIONS, RECORDED
from fal_server.http.routes.permissions import ROUTE_PERMISSIONS, Admission
from tests.support.controller import ROOT
from tests.support.platform_shapes import OPERATIONS as DESCRIBED

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# Routes have other names for these than operations.
NAMES = {"{name}": "{app}", "{dir}": "{path:path}", "{file}": "{path:path}", "{target_path}": "{path:path}"}
PREPARED = Prepared(does="it", now=None, calls=(contract("Runners.KillRunner", runnerId="x"),))


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now


class Echo:
    """A platform that answers every call with the same bytes."""

    def __init__(self, body: bytes = b"{}", secrets: Sequence[str] = ()) -> None:
        self.body = body
        self.secrets = secrets
        self.holder = "me"
        self.asked: list[Call] = []

    async def ask(self, call: Call) -> bytes:
        self.asked.append(call)
        return self.body


def test_operations_are_the_published_ones_and_need_what_their_routes_need() -> None:
    for operation in OPERATIONS:
        path = f"/v1{operation.path}"
        for name, other in NAMES.items():
            path = path.replace(name, other)
        needed = ROUTE_PERMISSIONS[operation.method, path]
        assert operation.permission == ("" if needed is Admission.ANYONE else needed), operation.id
        known = DESCRIBED[f"{operation.method} {operation.path}"]["query"]
        assert set(operation.query) <= set(known), operation.id
    published = {name for name in DESCRIBED if name != "POST /serverless/logs/stream"}
    assert {f"{each.method} {each.path}" for each in OPERATIONS} == published


def test_what_is_read_through_the_contract_changes_nothing() -> None:
    reading = {name for name in METHOD_PERMISSIONS if reads(name.removeprefix("fal.v1."))}
    assert not reading & set(RECORDED)
    assert not {name for name in reading if METHOD_PERMISSIONS[name].endswith(":write")}
    assert {"fal.v1.Secrets.ListSecrets", "fal.v1.Apps.ExplainApp", "fal.v1.Audit.VerifyAudit"} <= reading


def test_tools_that_act_need_what_their_calls_need() -> None:
    needed = {
        "stop_runner": METHOD_PERMISSIONS["fal.v1.Runners.StopRunner"],
        "kill_runner": METHOD_PERMISSIONS["fal.v1.Runners.KillRunner"],
        "rollback_app": METHOD_PERMISSIONS["fal.v1.Apps.SetAlias"],
        "scale_app": METHOD_PERMISSIONS["fal.v1.Apps.UpdateApplication"],
        "redrive_requests": ROUTE_PERMISSIONS["POST", "/applications/{nickname}/{app}/queue/redrive"],
    }
    tools = acting(Plans(Clock()))
    assert {tool.name: tool.permission for tool in tools} == needed
    assert not [tool.name for tool in READING if tool.acts]


def test_the_page_of_tools_has_them_all() -> None:
    page = (ROOT / "docs" / "reference" / "mcp.md").read_text()
    rows = {
        name: needed.strip("`") for name, needed in re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)
    }
    tools = (*READING, *DISCOVERY, *acting(Plans(Clock())))
    assert rows == {tool.name: tool.permission or "any key" for tool in tools}


def test_a_plan_is_used_once() -> None:
    plans = Plans(Clock())
    token, expires_at = plans.make("me", "kill", {"a": 1}, PREPARED)
    assert expires_at == BEGIN + LIFE
    assert plans.take(token, "me", "kill", {"a": 1}) is PREPARED
    with pytest.raises(Refused, match="used up"):
        plans.take(token, "me", "kill", {"a": 1})


def test_a_plan_expires() -> None:
    clock = Clock()
    plans = Plans(clock)
    token, expires_at = plans.make("me", "kill", {}, PREPARED)
    clock.now = expires_at
    with pytest.raises(Refused, match="expired"):
        plans.take(token, "me", "kill", {})


def test_the_plans_of_one_caller_take_no_room_from_others() -> None:
    plans = Plans(Clock())
    mine, _ = plans.make("me", "kill", {}, PREPARED)
    tokens = [plans.make("you", "kill", {"n": n}, PREPARED)[0] for n in range(MOST_OF_ONE + 1)]
    assert plans.take(mine, "me", "kill", {}) is PREPARED
    with pytest.raises(Refused):
        plans.take(tokens[0], "you", "kill", {"n": 0})
    assert plans.take(tokens[-1], "you", "kill", {"n": MOST_OF_ONE}) is PREPARED


Bound = tuple[str, str, dict[str, int]]
BOUND = st.tuples(
    st.sampled_from(["me", "you"]),
    st.sampled_from(["stop", "kill"]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2), max_size=2),
)


@given(made=BOUND, taken=BOUND, seconds=st.integers(0, int(LIFE.total_seconds()) * 2))
def test_a_token_works_for_what_it_was_made_for_alone(made: Bound, taken: Bound, seconds: int) -> None:
    clock = Clock()
    plans = Plans(clock)
    token, _ = plans.make(*made, PREPARED)
    clock.now += timedelta(seconds=seconds)
    if made == taken and seconds < LIFE.total_seconds():
        assert plans.take(token, *taken) is PREPARED
    else:
        with pytest.raises(Refused):
            plans.take(token, *taken)


async def test_a_call_that_fails_uses_the_plan_up() -> None:
    class Refuses(Echo):
        async def ask(self, call: Call) -> bytes:
            if call.path.endswith("KillRunner"):
                raise Refused(404, "it has ended")
            return b'{"runner": {"runnerId": "x"}}'

    kill = next(tool for tool in acting(Plans(Clock())) if tool.name == "kill_runner")
    platform = Refuses()
    plan = await kill.run(platform, {"runner_id": "x"})
    assert isinstance(plan, dict)
    confirmed = {"runner_id": "x", "plan_token": plan["plan_token"]}
    with pytest.raises(Refused, match="it has ended"):
        await kill.run(platform, confirmed)
    with pytest.raises(Refused, match="used up"):
        await kill.run(platform, confirmed)


def one_tool(result: object, secrets: Sequence[str] = ()) -> Toolset:
    async def run(platform: object, arguments: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    tool = Tool(name="tool", about="A tool.", schema=arguments({}), run=run)
    return Toolset([tool], Echo(secrets=secrets), Clock(), missing={})


async def test_a_long_result_is_cut_and_says_so() -> None:
    text = await one_tool(["x" * 1000] * 200).call("tool", {})
    assert len(text) < MOST_CHARACTERS + 300
    assert "Cut: these are 60000 of" in text


@given(secret=st.text("0123456789abcdef", min_size=8, max_size=64), around=st.text(max_size=20))
async def test_the_callers_credentials_are_in_no_text(secret: str, around: str) -> None:
    for result in ([around + secret + around], Refused(400, around + secret)):
        tools = one_tool(result, secrets=[secret])
        try:
            text = await tools.call("tool", {})
        except Refused as refused:
            text = refused.message
        assert secret not in text.replace("***", "")


@given(st.text(min_size=1))
def test_no_name_reaches_another_path(name: str) -> None:
    assert "/" not in segment(name)
    assert segment(name) not in (".", "..")
    assert not {".", ".."} & set(file_path(name).split("/"))
