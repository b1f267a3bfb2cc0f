"""Tools for agents, called by the SDK's client over stdio and HTTP. A real controller is behind them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fal_mcp.discovery import DISCOVERY
from fal_mcp.platform_tools import READING
from tests.agents.conftest import Open, key_of, over_http, over_stdio
from tests.support.controller import BIN, Controller, running
from tests.support.waiting import until

ACTING = {"stop_runner", "kill_runner", "rollback_app", "scale_app", "redrive_requests"}
PUBLISHED = {
    "list_apps", "fetch_requests", "fetch_request_logs", "get_analytics", "fetch_events", "list_revisions",
    "get_runner_history", "get_current_state", "get_usage", "list_files", "read_file", "fetch_model_requests",
    "list_namespaces", "search_operations", "describe_operation", "invoke_operation",
}  # fmt: skip
SHOP = {"endpoint_id": "local/shop"}


def runner_of(controller: Controller) -> str:
    """Return the id of a runner of the app that is ready."""

    def ready() -> str | None:
        listed = json.loads(controller.fal("runners", "list", "--state", "idle", "--json").stdout)["runners"]
        return listed[0]["runner_id"] if listed else None

    return until(ready, "a runner is ready")


def revisions(controller: Controller) -> list[dict[str, object]]:
    answer = controller.call("/v1/serverless/apps/local/shop/revisions", key=controller.key)
    return answer.json()["revisions"]


def failed_request(controller: Controller) -> str:
    """Let a queued request fail until it is given up. Return its id."""
    answer = controller.call("/queue/local/shop/back", {}, key=controller.key, headers={"X-Fal-No-Retry": "1"}).json()
    request_id = str(answer["request_id"])
    path = f"/queue/local/shop/requests/{request_id}/status"
    until(lambda: controller.call(path, key=controller.key).status == 200, "the request is given up")
    return request_id


async def test_the_published_names_are_there_and_say_that_they_only_read(controller: Controller, opened: Open) -> None:
    assert {tool.name for tool in (*READING, *DISCOVERY)} == PUBLISHED
    async with opened(controller) as tools:
        found = {tool.name: tool for tool in (await tools.client.list_tools()).tools}
    assert set(found) == PUBLISHED | ACTING
    for name, tool in found.items():
        assert tool.annotations is not None, name
        assert tool.annotations.read_only_hint == (name in PUBLISHED), name
        assert tool.description, name


async def test_tools_answer_what_the_platform_api_answers(controller: Controller, opened: Open) -> None:
    request_id = failed_request(controller)
    same = {
        "list_apps": ({"search": "SHOP", "expand": ["endpoints"]}, "apps?search=SHOP&expand=endpoints"),
        "fetch_requests": (
            {**SHOP, "request_id": request_id},
            f"requests/by-endpoint?endpoint_id=local/shop&request_id={request_id}",
        ),
        "list_revisions": (SHOP, "apps/local/shop/revisions"),
        "fetch_events": ({**SHOP, "category": "deployment_ended"}, "apps/local/shop/events?category=deployment_ended"),
        "list_files": ({}, "files/list"),
    }
    async with opened(controller) as tools:
        for tool, (arguments, path) in same.items():
            answer = controller.call(f"/v1/serverless/{path}", key=controller.key)
            assert answer.status == 200
            assert (await tools.call(tool, **arguments)).result == answer.json(), tool


async def test_each_tool_shows_what_is_so(controller: Controller, opened: Open) -> None:
    assert controller.call("/local/shop/", {}, key=controller.key).status == 200
    request_id = failed_request(controller)
    async with opened(controller) as tools:
        (item,) = (await tools.call("fetch_requests", **SHOP, request_id=request_id)).result["items"]
        assert (item["request_id"], item["status_code"]) == (request_id, 503)
        logs = (await tools.call("fetch_request_logs", app_id="local/shop", search="sold one")).result["items"]
        assert logs[0]["message"] == "sold one"
        numbers = (await tools.call("get_analytics", **SHOP, expand=["summary", "request_count", "error_count"])).result
        assert sum(row["request_count"] for row in numbers["summary"]) >= 2
        history = (await tools.call("get_runner_history", **SHOP, timeframe="hour")).result["history"]
        assert history[-1]["idle"] + history[-1]["running"] >= 1  # the current hour may have just started
        state = (await tools.call("get_current_state", **SHOP)).result
        assert state["revision"] in {each["revision_id"] for each in revisions(controller)}
        assert sum(state["runners"].values()) >= 1
        usage = (await tools.call("get_usage", expand=["summary"])).result["summary"]
        assert usage[0]["app"] == "shop"
        assert "models of the fal cloud" in (await tools.call("fetch_model_requests")).text


async def test_files_are_read_a_part_at_a_time(controller: Controller, opened: Open, tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(9000))
    (tmp_path / "notes.txt").write_text(text)
    (tmp_path / "picture.bin").write_bytes(b"\0\1\2")
    (tmp_path / "empty.txt").write_bytes(b"")
    for name in ("notes.txt", "picture.bin", "empty.txt"):
        controller.fal("files", "upload", str(tmp_path / name), f"/data/{name}")
    async with opened(controller) as tools:
        read, offset = "", 0
        while offset is not None:
            part = (await tools.call("read_file", path="/data/notes.txt", offset=offset)).result
            read, offset = read + part["text"], part["next_offset"]
        assert read == text
        assert (await tools.call("read_file", path="empty.txt")).result["text"] == ""
        assert "is not text" in (await tools.call("read_file", path="picture.bin")).text
        assert "has `..` in it" in (await tools.call("read_file", path="../../etc/passwd")).text


async def test_the_rest_of_the_api_is_found_and_read(controller: Controller, opened: Open) -> None:
    controller.fal("secrets", "set", "PASSWORD=hunter2-hunter2")
    async with opened(controller) as tools:
        listed = (await tools.call("list_namespaces")).result
        assert {"serverless", "keys", "Apps", "Secrets"} <= {each["name"] for each in listed["namespaces"]}
        assert {"billing", "models", "compute"} <= set(listed["not_served"])
        found = (await tools.call("search_operations", query="list secrets")).result["operations"]
        assert found[0]["operation_id"] == "Secrets.ListSecrets"
        assert "billing" not in str(found)
        assert "no bills" in str((await tools.call("search_operations", query="billing")).result)
        described = (await tools.call("describe_operation", operation_id="Secrets.ListSecrets")).result
        assert described["needs"] == "serverless:secrets:read"
        assert "fal.v1.ListSecretsRequest" in described["schemas"]
        of_rest = (await tools.call("describe_operation", operation_id="serverlessListAppEvents")).result
        assert of_rest["arguments"]["required"] == ["owner", "name"]
        secrets = await tools.call("invoke_operation", operation_id="Secrets.ListSecrets")
        assert "PASSWORD" in secrets.text
        assert "hunter2" not in secrets.text
        queue = await tools.call(
            "invoke_operation", operation_id="serverlessGetAppQueueInfo", arguments={"owner": "local", "name": "shop"}
        )
        assert queue.result == {"queue_size": 0}
        metrics = await tools.call("invoke_operation", operation_id="serverlessGetMetrics")
        assert "fal_app_runners" in metrics.result
        for writing in ("Secrets.SetSecret", "createApiKey", "Keys.CreateLoginToken", "Runners.KillRunner"):
            assert "only reads" in (await tools.call("invoke_operation", operation_id=writing)).text
        assert "no prices" in (await tools.call("invoke_operation", operation_id="billing.get")).text


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("get_current_state", {"endpoint_id": "local/nothing"}, "Error 404: app 'nothing' not found"),
    ("list_revisions", {"endpoint_id": "local/nothing"}, "Error 404: app 'nothing' not found"),
    ("scale_app", {"endpoint_id": "else/shop", "max_concurrency": 1}, "Error 404: app else/shop not found"),
    ("scale_app", {"endpoint_id": "local/shop"}, "Error 400: name a setting to change"),
    ("scale_app", {"endpoint_id": "local/shop", "max_concurrency": -1}, "Error 400: max_concurrency"),
    ("stop_runner", {"runner_id": "nobody"}, "Error 404: runner 'nobody' not found"),
    ("rollback_app", {"endpoint_id": "local/shop", "revision_id": "none"}, "Error 404: local/shop has no revision"),
    ("redrive_requests", {"endpoint_id": "local/shop", "request_ids": ["none"]}, "Error 404: local/shop has given"),
    ("list_revisions", {"endpoint": "local/shop"}, "Error 400"),
    ("list_revisions", {"endpoint_id": "shop"}, "Error 400: endpoint_id"),
    ("do_it", {}, "Error 404: there is no tool 'do_it'"),
]


async def test_a_wrong_call_says_what_is_wrong(controller: Controller, opened: Open) -> None:
    async with opened(controller) as tools:
        for tool, arguments, words in WRONG:
            told = await tools.call(tool, **arguments)
            assert told.failed
            assert told.text.startswith(words), told.text


async def test_a_plan_changes_nothing_and_is_carried_out_once(controller: Controller, opened: Open) -> None:
    wanted = {**SHOP, "max_concurrency": 5, "keep_alive": 301}
    controller.fal("apps", "scale", "shop", "--max-concurrency", "2", "--keep-alive", "300")

    def settings() -> tuple[int, int]:
        (app,) = controller.call("/v1/serverless/apps", key=controller.key).json()["apps"]
        return app["max_concurrency"], app["keep_alive"]

    async with opened(controller) as tools:
        plan = (await tools.call("scale_app", **wanted)).result
        assert "max_concurrency 2 -> 5" in plan["plan"]
        assert settings() == (2, 300)
        token = plan["plan_token"]
        other = await tools.call("scale_app", **{**wanted, "max_concurrency": 6}, plan_token=token)
        assert "for other arguments" in other.text
        assert settings() == (2, 300)
        done = (await tools.call("scale_app", **wanted, plan_token=token)).result
        assert "max_concurrency 2 -> 5" in done["done"]
        assert settings() == (5, 301)
        assert "used up" in (await tools.call("scale_app", **wanted, plan_token=token)).text
    assert token not in (controller.state_dir / "controller.log").read_text()
    assert "Apps.UpdateApplication" in audited(controller)


def audited(controller: Controller) -> set[str]:
    """Return the actions in the audit log."""
    entries = json.loads(controller.fal("audit", "list", "--json").stdout)["entries"]
    return {entry["action"].removeprefix("fal.v1.") for entry in entries}


async def test_a_token_is_for_one_key_and_one_tool(controller: Controller) -> None:
    runner, other = runner_of(controller), key_of(controller, "FULL")
    async with over_http(controller) as tools, over_http(controller, key=other) as others:
        token = (await tools.call("stop_runner", runner_id=runner)).result["plan_token"]
        assert "another key" in (await others.call("stop_runner", runner_id=runner, plan_token=token)).text
        assert "another tool" in (await tools.call("kill_runner", runner_id=runner, plan_token=token)).text
    assert runner_of(controller) == runner


@pytest.mark.parametrize(("tool", "action"), [("stop_runner", "StopRunner"), ("kill_runner", "KillRunner")])
async def test_runners_are_ended(controller: Controller, opened: Open, tool: str, action: str) -> None:
    runner = runner_of(controller)
    async with opened(controller) as tools:
        plan = (await tools.call(tool, runner_id=runner)).result
        assert (plan["now"]["app"], plan["now"]["state"]) == ("shop", "idle")
        await tools.call(tool, runner_id=runner, plan_token=plan["plan_token"])
    until(lambda: runner not in controller.fal("runners", "list", "--json").stdout, "the runner has ended")
    assert f"Runners.{action}" in audited(controller)


async def test_an_app_is_rolled_back_and_forth(controller: Controller, opened: Open) -> None:
    newest, oldest = revisions(controller)
    current = next(each for each in revisions(controller) if each["is_current"])
    target = oldest if current["revision_id"] == newest["revision_id"] else newest
    named = {} if target is oldest else {"revision_id": target["revision_id"]}
    async with opened(controller) as tools:
        plan = (await tools.call("rollback_app", **SHOP, **named)).result
        assert plan["now"]["target"]["revision_id"] == target["revision_id"]
        await tools.call("rollback_app", **SHOP, **named, plan_token=plan["plan_token"])
        until(
            lambda: any(
                each["is_current"] and each["revision_id"] == target["revision_id"] for each in revisions(controller)
            ),
            "the app is on the other revision",
        )
        if target is oldest:
            assert "no earlier revision" in (await tools.call("rollback_app", **SHOP)).text


async def test_given_up_requests_are_redriven(controller: Controller, opened: Open) -> None:
    request_id = failed_request(controller)
    async with opened(controller) as tools:
        plan = (await tools.call("redrive_requests", **SHOP, request_ids=[request_id])).result
        assert plan["now"][0]["request_id"] == request_id
        done = await tools.call("redrive_requests", **SHOP, request_ids=[request_id], plan_token=plan["plan_token"])
        assert done.result["answer"] == {"request_ids": [request_id]}


async def test_a_key_does_what_it_may(controller: Controller, reader: str) -> None:
    caller = key_of(controller, "API")
    async with over_http(controller, key=reader) as tools:
        assert await tools.names() == PUBLISHED
        assert "needs serverless:runners:write" in (await tools.call("stop_runner", runner_id="x")).text
    async with over_stdio(controller, key=reader) as tools:
        wanted = {**SHOP, "max_concurrency": 7}
        token = (await tools.call("scale_app", **wanted)).result["plan_token"]
        refused = await tools.call("scale_app", **wanted, plan_token=token)
        assert refused.text.startswith("Error 403: Insufficient permissions")
        assert "'serverless:apps:write'" in refused.text
    for face in (over_http, over_stdio):
        async with face(controller, key=caller) as tools:
            refused = await tools.call("fetch_requests", **SHOP)
            assert refused.text.startswith("Error 403: Insufficient permissions")
            assert "'serverless:requests:read'" in refused.text


async def test_a_key_for_one_app_sees_and_scales_that_app(controller: Controller, opened: Open) -> None:
    made = controller.fal("keys", "create", "--preset", "SERVERLESS", "--for-app", "shop", "--json").stdout
    key = json.loads(made)
    async with opened(controller, key=f"{key['key_id']}:{key['key_secret']}") as tools:
        assert (await tools.call("get_current_state", **SHOP)).result["endpoint_id"] == "local/shop"
        assert "max_concurrency" in (await tools.call("scale_app", **SHOP, max_concurrency=9)).result["plan"]
        assert (await tools.call("get_current_state", endpoint_id="local/other")).failed
        assert (await tools.call("list_apps")).failed


async def test_tools_act_only_if_that_is_allowed(
    controller: Controller, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with over_stdio(controller, writes=False) as tools:
        assert await tools.names() == PUBLISHED
        assert "`fal mcp --allow-writes`" in (await tools.call("kill_runner", runner_id="x")).text
    with running(tmp_path_factory.mktemp("strict")) as strict:
        async with over_http(strict) as tools:
            assert await tools.names() == PUBLISHED
            assert "`fal up --mcp-writes`" in (await tools.call("kill_runner", runner_id="x")).text


async def test_no_result_has_the_callers_key(controller: Controller, opened: Open, tmp_path: Path) -> None:
    _, secret = controller.key.split(":")
    (tmp_path / "leak.txt").write_text(f"FAL_KEY={controller.key}")
    controller.fal("files", "upload", str(tmp_path / "leak.txt"), "/data/leak.txt")
    async with opened(controller) as tools:
        read = await tools.call("read_file", path="leak.txt")
        refused = await tools.call("read_file", path=f"{secret}.txt")
    assert "***" in read.text
    for told in (read, refused):
        assert secret not in told.text


@pytest.mark.parametrize("key", [None, "nobody:wrong"])
def test_a_caller_without_a_key_is_refused(controller: Controller, key: str | None) -> None:
    answer = controller.call("/v1/mcp/platform", {}, key=key)
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authorization_error")


def test_there_is_no_stream_to_listen_to(controller: Controller) -> None:
    assert controller.call("/v1/mcp/platform", key=controller.key).status == 405


def test_a_body_that_is_too_large_is_refused(controller: Controller) -> None:
    request = urllib.request.Request(f"http://{controller.host}/v1/mcp/platform", b"[" * (2 * 1024**2))
    request.add_header("Authorization", f"Key {controller.key}")
    request.add_header("Content-Type", "application/json")
    request.add_header("Accept", "application/json, text/event-stream")
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(request)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "import sys; from fal_cli.main import main; sys.modules['mcp'] = None; sys.exit(main(['mcp']))",
            "fal mcp needs the extra mcp: pip install 'fal-grpc[mcp]'",
        ),
        (
            "import sys, fal_server.http.routes.mcp, fal_cli.commands.mcp; sys.exit(f'sdk: {\"mcp\" in sys.modules}')",
            "sdk: False",
        ),
    ],
    ids=["without the extra", "until it runs"],
)
def test_the_sdk_is_needed_by_its_own_command_alone(tmp_path: Path, program: str, words: str) -> None:
    environment = {"PATH": str(BIN), "HOME": str(tmp_path), "FAL_GRPC_HOST": "127.0.0.1:1", "FAL_KEY": "id:secret"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr


def test_the_cloud_has_tools_of_its_own(tmp_path: Path) -> None:
    environment = {"PATH": str(BIN), "HOME": str(tmp_path), "FAL_KEY": "id:secret"}
    done = subprocess.run(["fal", "mcp"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is the fal cloud" in done.stderr
