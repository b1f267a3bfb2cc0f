"""Two accounts on one controller. Every method and path is called with the other account's ids.

A stranger makes each call twice: with ids of another account, and with ids of the same form that do not exist. Both
answers must be the same, and must not contain an id that the stranger did not send.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from fal_server.grpc.methods import SERVICES
from fal_server.http.routes.permissions import ROUTE_PERMISSIONS, RUNNERS_SOCKET, Admission
from tests.support.controller import Controller
from tests.support.waiting import until

APP = """
import fal
from pathlib import Path

class Shop(fal.App, name="{name}", keep_alive=300, min_concurrency=1):
    app_auth = "private"
    app_files = ["{file}"]

    @fal.endpoint("/")
    def sell(self) -> dict:
        print("sold {line}")
        return {{"words": Path("{file}").read_text()}}
"""


@dataclass(frozen=True, kw_only=True)
class Ids:
    """The ids that a stranger has to know. By default they do not exist."""

    account: str = field(default_factory=lambda: f"nobody{secrets.token_hex(4)}")
    team: str = field(default_factory=lambda: f"no-team{secrets.token_hex(4)}")
    user_id: str = field(default_factory=lambda: f"team|{secrets.token_hex(8)}")
    app: str = field(default_factory=lambda: f"none{secrets.token_hex(8)}")
    environment: str = field(default_factory=lambda: f"env{secrets.token_hex(8)}")
    secret: str = field(default_factory=lambda: f"S{secrets.token_hex(8)}")
    file: str = field(default_factory=lambda: f"f{secrets.token_hex(8)}")
    drain: str = field(default_factory=lambda: f"d{secrets.token_hex(8)}")
    notice: str = field(default_factory=lambda: f"n{secrets.token_hex(8)}")
    workflow: str = field(default_factory=lambda: f"w{secrets.token_hex(8)}")
    exec_id: str = field(default_factory=lambda: secrets.token_hex(16))
    key_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    revision: str = field(default_factory=lambda: str(uuid.uuid4()))
    runner: str = field(default_factory=lambda: str(uuid.uuid4()))
    request: str = field(default_factory=lambda: str(uuid.uuid4()))
    run: str = field(default_factory=lambda: str(uuid.uuid4()))
    upload: str = field(default_factory=lambda: secrets.token_hex(16))
    app_upload: str = field(default_factory=lambda: secrets.token_hex(16))
    file_hash: str = field(default_factory=lambda: secrets.token_hex(32))
    line: str = field(default_factory=lambda: f"line{secrets.token_hex(8)}")

    def all(self) -> dict[str, str]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Two:
    """A controller, an account's data, and keys. The keys are of that account and of strangers.

    Each test has its own stranger, because a stranger's audit log contains what it sent.
    """

    controller: Controller
    ids: Ids
    alice: Controller
    bob: Controller
    carol: Controller
    dave: Controller
    erin: Controller


@pytest.fixture(scope="module")
def two(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    names = Ids()

    def account(nickname: str, *more: str) -> Controller:
        made = json.loads(controller.fal("teams", "create", nickname, *more, "--json").stdout)
        return replace(controller, key=f"{made['key_id']}:{made['key_secret']}")

    alice = account(names.account, "--user")
    strangers = {name: account(f"{name}{secrets.token_hex(4)}", "--user") for name in ("bob", "carol", "dave", "erin")}
    account(names.team)
    controller.fal("teams", "add", names.team, names.account)
    folder = tmp_path_factory.mktemp("shop")
    (folder / names.file).write_text(names.line)
    (folder / "app.py").write_text(APP.format(name=names.app, file=names.file, line=names.line))
    alice.fal("deploy", str(folder / "app.py"))
    alice.fal("environments", "create", names.environment)
    alice.fal("secrets", "set", f"{names.secret}=x")
    alice.fal("drains", "create", names.drain, "http://127.0.0.1:1/", "--header", f"x={names.line}", "--app", names.app)
    alice.fal("notices", "create", names.notice, f"http://127.0.0.1:1/{names.line}", "--app", names.app)
    alice.fal("files", "upload", str(folder / names.file), f"/data/{names.file}")
    with grpc.insecure_channel(f"127.0.0.1:{controller.grpc_port}") as channel:
        yield Two(controller=controller, ids=_rest_of(names, alice, folder, channel), alice=alice, **strangers)
    alice.fal("apps", "delete", names.app)


def _rest_of(names: Ids, alice: Controller, folder: Path, channel: grpc.Channel) -> Ids:
    """Create the things whose ids the controller chooses, and return all ids."""
    (app,) = json.loads(alice.fal("apps", "list", "--json").stdout)["apps"]
    answer = alice.call(f"/queue/{names.account}/{names.app}/", {}, key=alice.key).json()
    status = f"/queue/{names.account}/{names.app}/requests/{answer['request_id']}/status"
    until(lambda: alice.call(status, key=alice.key).status == 200, "the request is done")
    (runner,) = json.loads(alice.fal("runners", "list", "--json").stdout)["runners"]
    node = {"id": "one", "type": "run", "app": f"{names.account}/{names.app}", "input": {}, "depends": []}
    workflow = {
        "name": names.workflow,
        "title": "t",
        "contents": {"name": "w", "nodes": {"one": node}, "output": {"words": "$one.words"}},
    }
    assert alice.call("/workflows/", workflow, key=alice.key).status == 201
    run = alice.call(f"/queue/workflows/{names.account}/{names.workflow}", {}, key=alice.key).json()
    ran = f"/queue/workflows/{names.account}/{names.workflow}/requests/{run['request_id']}/status"
    until(lambda: alice.call(ran, key=alice.key).status == 200, "the workflow has run")
    started = alice.call(f"/files/file/multipart//data/{names.file}/initiate", {}, key=alice.key).json()
    file_hash = next((alice.state_dir / "accounts").glob("*/app-files/*/*")).name
    app_started = alice.call(f"/files/app/multipart/{file_hash}/initiate", {"mode": "33188"}, key=alice.key).json()
    start = next(m for s in SERVICES for m in s.methods if m.name == "StartExec")
    sent = GetMessageClass(start.input_type)(runner_id=runner["runner_id"], exec_id=names.exec_id, command=["cat"])
    _one_answer(channel, start, sent, alice.key)
    (team,) = [
        team["user_id"] for team in alice.call("/users/teams", key=alice.key).json() if team["nickname"] == names.team
    ]
    return replace(
        names,
        user_id=team,
        key_id=alice.key.partition(":")[0],
        revision=app["revision"],
        runner=runner["runner_id"],
        request=answer["request_id"],
        run=run["request_id"],
        upload=started["upload_id"],
        app_upload=app_started["upload_id"],
        file_hash=file_hash,
    )


def _app(ids: Ids) -> dict[str, object]:
    """Return a deploy that is refused before anything is built."""
    virtualenv = {"kind": "virtualenv", "configuration": {}}
    return {"environments": [virtualenv], "entrypoint": "a:b", "application_name": ids.app}


# By method: a stranger's request for another account's things. A method without a row fails the test.
CALLS: dict[str, Callable[[Ids], Sequence[dict[str, Any]]]] = {
    "AddMember": lambda i: [
        {"team": i.team, "user": i.account, "role": 4},
        {"team": i.account, "user": "x", "role": 4},
    ],
    "CreateAccount": lambda i: [{"nickname": i.account, "kind": 1}, {"nickname": i.team, "kind": 2}],
    "ListAccounts": lambda i: [{}, {"all": True}],
    "RenameAccount": lambda i: [{"nickname": i.account, "new_nickname": "mine"}, {"nickname": i.team}],
    "DeleteAccount": lambda i: [{"nickname": i.account}, {"nickname": i.team}],
    "GetQuotas": lambda i: [{"nickname": i.account}, {"nickname": i.team}],
    "SetQuotas": lambda i: [{"nickname": i.account, "quotas": {"runners": 1}}, {"nickname": i.team}],
    "ListMembers": lambda i: [{"team": i.team}, {"team": i.account}],
    "RemoveMember": lambda i: [{"team": i.team, "user": i.account}],
    "DeleteAlias": lambda i: [{"alias": i.app}, {"alias": "x", "environment_name": i.environment}],
    "ExplainApp": lambda i: [{"application_name": i.app}],
    "ListAliases": lambda i: [{}, {"environment_name": i.environment}],
    "RolloutApplication": lambda i: [{"application_name": i.app}],
    "SetAlias": lambda i: [{"alias": i.app, "revision": i.revision}, {"alias": "mine", "revision": i.revision}],
    "SimulateApp": lambda i: [{"application_name": i.app}],
    "UpdateApplication": lambda i: [{"application_name": i.app, "keep_alive": 7}],
    "WatchApps": lambda i: [{}, {"environment_name": i.environment}],
    "ListAuditEntries": lambda i: [{}],
    "VerifyAudit": lambda i: [{}],
    "GetRequest": lambda i: [{"request_id": i.request}],
    "GetRequestStats": lambda i: [{}, {"application_name": i.app}],
    "ListRequests": lambda i: [{}, {"application_name": i.app}, {"runner_id": i.runner}, {"key_id": i.key_id}],
    "CreateDrain": lambda i: [{"name": i.drain, "url": "http://127.0.0.1:1/", "apps": [i.app]}],
    "ListDrains": lambda i: [{}],
    "GetDrain": lambda i: [{"name": i.drain}],
    "DeleteDrain": lambda i: [{"name": i.drain}],
    "PauseDrain": lambda i: [{"name": i.drain}],
    "ResumeDrain": lambda i: [{"name": i.drain}],
    "CreateNotice": lambda i: [{"name": i.notice, "url": "http://127.0.0.1:1/", "apps": [i.app]}],
    "ListNotices": lambda i: [{}],
    "GetNotice": lambda i: [{"name": i.notice}],
    "TestNotice": lambda i: [{"name": i.notice}],
    "DeleteNotice": lambda i: [{"name": i.notice}],
    "CreateEnvironment": lambda i: [{"name": i.environment}],
    "DeleteEnvironment": lambda i: [{"name": i.environment}],
    "ListEnvironments": lambda i: [{}],
    "CloseExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id}],
    "GetExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id}],
    "ListExecs": lambda i: [{}, {"runner_id": i.runner}],
    "ReadExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id}],
    "ResizeExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id, "tty_size": {"height": 9, "width": 9}}],
    "SignalExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id, "signal": 9}],
    "StartExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id, "command": ["true"]}],
    "WriteExec": lambda i: [{"runner_id": i.runner, "exec_id": i.exec_id, "data": b"x"}],
    "CreateLoginToken": lambda i: [{"life": {"seconds": 60}}],
    "CreateUserKey": lambda i: [{"alias": i.account}],
    "GetCaller": lambda i: [{}],
    "ListUserKeys": lambda i: [{}],
    "RevokeUserKey": lambda i: [{"key_id": i.key_id}],
    "RotateUserKey": lambda i: [{"key_id": i.key_id}],
    "FollowLogs": lambda i: [{"selector": each} for each in _selectors(i)],
    "ListLogs": lambda i: [*({"selector": each} for each in _selectors(i)), {}],
    "BuildEnvironment": lambda i: [{"environments": [{"kind": "virtualenv"}], "environment_name": i.environment}],
    "DeleteApplication": lambda i: [{"application_id": i.revision}],
    "ListApplications": lambda i: [{}, {"application_name": i.app}, {"environment_name": i.environment}],
    "PlanApplication": lambda i: [
        {"application": _app(i)},
        {"application": {**_app(i), "environment_name": i.environment}},
    ],
    "RegisterApplication": lambda i: [
        {**_app(i), "environment_name": i.environment},
        {**_app(i), "secrets": {"names": [i.secret]}, "build_environment": False},
        {**_app(i), "files": [{"hash": i.file_hash, "relative_path": "a"}], "build_environment": False},
    ],
    "GetRunner": lambda i: [{"runner_id": i.runner}],
    "KillRunner": lambda i: [{"runner_id": i.runner}],
    "ListAliasRunners": lambda i: [{"alias": i.app, "list_pending": True}],
    "ListNodes": lambda i: [{}],
    "ListRunners": lambda i: [{}, {"list_pending": True, "start_time": {"seconds": 1}}],
    "ShellRunner": lambda i: [{"runner_id": i.runner, "command": ["true"]}],
    "StopRunner": lambda i: [{"runner_id": i.runner}],
    "WatchRunners": lambda i: [{}, {"alias": i.app}],
    "InteractiveRun": lambda i: [{}],
    "Map": lambda i: [{}],
    "Run": lambda i: [{**_app(i), "environment_name": i.environment}],
    "ListSecrets": lambda i: [{}, {"environment_name": i.environment}],
    "SetSecret": lambda i: [{"name": i.secret}, {"name": "A", "value": "x", "environment_name": i.environment}],
}
# By argument: what a stranger gives the tools for agents. An id in a tool that has no row here fails the test.
TOOL_ARGUMENTS: dict[str, Callable[[Ids], object]] = {
    "app": lambda i: i.app,
    "app_id": lambda i: [f"{i.account}/{i.app}"],
    "endpoint_id": lambda i: f"{i.account}/{i.app}",
    "environment": lambda i: i.environment,
    "job_id": lambda i: i.runner,
    "path": lambda i: f"/data/{i.file}",
    "request_id": lambda i: i.request,
    "request_ids": lambda i: [i.request],
    "revision": lambda i: i.revision,
    "revision_id": lambda i: i.revision,
    "runner_id": lambda i: i.runner,
}
# Arguments that name nobody's thing.
OF_NOBODY = re.compile(
    "aggregation|arguments|bound_to_timeframe|category|cursor|end|expand|level|limit|offset|operation_id|plan_token|"
    "query|replace_first|run_source|search|sort_by|start|status|timeframe|timezone|traceback|keep_alive|(min|max)_.*|.*_(buffer|delay|perc|seconds)"
)
ENDLESS = {"FollowLogs", "WatchApps", "WatchRunners", "ShellRunner", "ReadExec"}
# A stranger may create its own thing under a name that another account uses.
MAKES_ITS_OWN = {"CreateDrain", "CreateEnvironment", "CreateNotice", "CreateUserKey"}


def _selectors(ids: Ids) -> list[dict[str, object]]:
    of_app: dict[str, object] = {"app": {"app": ids.app}}
    return [{"runner_id": ids.runner}, of_app, {"runner_id": ids.runner, "request_id": ids.request}]


def _body(ids: Ids) -> dict[str, object]:
    """Return a body with the fields of all paths."""
    return {
        "allowed_apps": [f"{ids.account}/{ids.app}"],
        "contents": {"nodes": {}, "output": {}},
        "destination": f"/data/{ids.file}-2",
        "hash": ids.file_hash,
        "hashes": [ids.file_hash],
        "mode": "33188",
        "name": f"new-{ids.workflow}",
        "parts": [],
        "title": "t",
    }


def _paths(path: str, ids: Ids) -> list[str]:
    """Return a path of the table with the ids in their places."""
    values = {
        "app": ids.app,
        "endpoint:path": "x",
        "key_id": ids.key_id,
        "hash": ids.file_hash,
        "name": ids.workflow,
        "nickname": ids.account,
        "number": "1",
        "owner": ids.account,
        "path:path": f"/data/{ids.file}",
        "request_id": ids.request,
        "revision_id": ids.revision,
        "run_id": ids.run,
        "service": "Runners",
        "method": "GetRunner",
        "runner_id": ids.runner,
        "upload_id": ids.app_upload if "/app/" in path else ids.upload,
        "upload_id:str": ids.upload,
        "number:str": "1",
        "rest:path": f"{ids.account}/{ids.app}/requests/{ids.request}",
        "object_id": ids.upload,
    }
    filled = re.sub(r"\{([^}]*)\}", lambda found: values[found[1]], path)
    query = {
        "/logs/history": f"?job_id={ids.runner}&page_size=10",
        "/logs/stream": f"?job_id={ids.runner}",
        "/applications/{nickname}/{app}/queue/redrive": f"?ids={ids.request}",
    }.get(path, "")
    if path == "/queue/{rest:path}":
        of_app = f"/queue/{ids.account}/{ids.app}"
        return [filled, f"{filled}/status", f"{filled}/status/stream", f"{filled}/cancel", of_app, f"{of_app}/x"]
    return [filled + query]


@dataclass
class Tally:
    """The calls, and what they disclosed."""

    calls: int = 0
    hints: list[str] = field(default_factory=list)

    def compare(self, what: str, ids: Ids, answers: tuple[str, str], sent: tuple[str, str], nobody: Ids) -> None:
        """Record a disclosure if answers about existing and missing things differ."""
        self.calls += 2
        real, unreal = answers
        for name, text in ids.all().items():
            if text in real and text not in sent[0]:
                self.hints.append(f"{what}: the answer holds the {name}, which was not sent: {real[:300]}")
        for name, text in ids.all().items():
            real, unreal = real.replace(text, f"<{name}>"), unreal.replace(nobody.all()[name], f"<{name}>")
        if _plain(real) != _plain(unreal):
            self.hints.append(f"{what}: {_parted(real, unreal)}")


def _parted(real: str, unreal: str) -> str:
    """Return both answers from the first difference on."""
    one, other = _plain(real), _plain(unreal)
    same = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, same - 100)
    return f"{one[start:][:300]} | but of nothing: {other[start:][:300]}"


def _plain(answer: str) -> str:
    """Return an answer without values that differ each time: ids, times, tokens."""
    answer = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|eyJ[\w.-]+|[\w-]{24,}", "<new>", answer)
    answer = re.sub(r"(seconds|nanos): \d+|\d{4}-\d\d-\d\d[T ][\d:.+]+( UTC)?", "<time>", answer)
    # On pages: ages, prefixes of ids, numbers of rows, ports and charts.
    return re.sub(
        r">(now|\d+ \w+ ago)<|\b[0-9a-f]{8}\b|(?<=>)[\d,]+(?=<)|:\d{5}\b|data-columns=\"[^\"]*\"", "<new>", answer
    )


def _one_answer(
    channel: grpc.Channel, method: MethodDescriptor, message: Message, key: str, service: str | None = None
) -> str:
    """Call a method. Return its status and message, or its answer. Of an endless stream, return the beginning."""
    path = f"/{service or method.containing_service.full_name}/{method.name}"
    key_id, _, secret = key.partition(":")
    call = channel.stream_stream(path) if method.client_streaming else channel.unary_stream(path)
    data = message.SerializeToString()
    sent: Any = iter([data]) if method.client_streaming else data
    answers = call(sent, metadata=(("auth-key-id", key_id), ("auth-key", secret)))
    got: list[str] = []
    try:
        for answer in answers:
            got.append(str(GetMessageClass(method.output_type).FromString(answer)))
            if method.name in ENDLESS:
                break
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    finally:
        answers.cancel()
    return f"OK {''.join(got)}"


def test_every_method(two: Two) -> None:
    tally, nobody = Tally(), Ids()
    before = _state(two)
    methods = {method.name: method for service in SERVICES for method in service.methods}
    assert set(CALLS) == set(methods)
    with grpc.insecure_channel(f"127.0.0.1:{two.controller.grpc_port}") as channel:
        # The audit log comes first, before it contains what the stranger sent.
        for name, method in sorted(
            methods.items(), key=lambda each: (each[0] in MAKES_ITS_OWN, "Audit" not in each[0])
        ):
            make = GetMessageClass(method.input_type)
            for real, unreal in zip(CALLS[name](two.ids), CALLS[name](nobody), strict=True):
                sent = make(**real), make(**unreal)
                got = tuple(_one_answer(channel, method, message, two.bob.key) for message in sent)
                tally.compare(name, two.ids, (got[0], got[1]), (str(sent[0]), str(sent[1])), nobody)
                if not method.client_streaming and not method.server_streaming:
                    path = f"/{method.containing_service.full_name}/{name}"
                    bodies = [json_format.MessageToDict(message) for message in sent]
                    said = [_http(two.bob, "POST", path, body) for body in bodies]
                    texts = json.dumps(bodies[0]), json.dumps(bodies[1])
                    tally.compare(f"POST {path}", two.ids, (said[0], said[1]), texts, nobody)
                    assert said[0].startswith("200") is got[0].startswith("OK") or name in MAKES_ITS_OWN, (name, said)
                if real != unreal and name not in MAKES_ITS_OWN and got[0].startswith("OK"):
                    assert name in ANSWERED, (name, got[0])
    print(f"\n{tally.calls} calls of {len(methods)} methods, {len(tally.hints)} hints")
    assert tally.hints == []
    assert _state(two) == before


# Methods that answer a stranger who names another account's thing, without a difference to one that does not exist.
ANSWERED = {
    "GetRequestStats",
    "ListRequests",
    "ListLogs",
    "ListAliases",
    "ListApplications",
    "ListSecrets",
    "PlanApplication",
}


def test_every_method_by_its_second_name(two: Two) -> None:
    tally, nobody = Tally(), Ids()
    before = _state(two)
    with grpc.insecure_channel(f"127.0.0.1:{two.controller.grpc_port}") as channel:
        for method in (method for service in SERVICES for method in service.methods):
            if "Audit" in method.name or method.name in MAKES_ITS_OWN:
                continue  # these have a stranger's own calls and things, and were compared under the first name
            make = GetMessageClass(method.input_type)
            for real, unreal in zip(CALLS[method.name](two.ids), CALLS[method.name](nobody), strict=True):
                sent = make(**real), make(**unreal)
                got = tuple(
                    _one_answer(channel, method, message, two.dave.key, "controller.IsolateController")
                    for message in sent
                )
                tally.compare(method.name, two.ids, (got[0], got[1]), (str(sent[0]), str(sent[1])), nobody)
    print(f"\n{tally.calls} calls by second names, {len(tally.hints)} hints")
    assert tally.hints == []
    assert _state(two) == before


def test_every_tool(two: Two) -> None:
    """Each tool for agents, with each argument that names something. Each operation that it finds is tested, too.

    Those that act are off by default, and call methods that are compared above.
    """
    tally, nobody = Tally(), Ids()
    before = _state(two)
    listed = _tools(two.erin, "tools/list", {})["tools"]
    tools = {tool["name"]: {"properties": {}, **tool["inputSchema"]} for tool in listed}
    for name, schema in tools.items():
        known = {each for each in schema["properties"] if each in TOOL_ARGUMENTS}
        assert all(each in known or OF_NOBODY.fullmatch(each) for each in schema["properties"]), (name, schema)
        needed = set(schema.get("required", ())) & known
        for chosen in sorted({frozenset(needed), frozenset(known), *(frozenset({*needed, each}) for each in known)}):
            more = {"keep_alive": 7} if name == "scale_app" else {}
            given = [{each: TOOL_ARGUMENTS[each](ids) for each in sorted(chosen)} | more for ids in (two.ids, nobody)]
            _compare_tool(tally, two, nobody, name, given)
    for method in (method for service in SERVICES for method in service.methods):
        operation = f"{method.containing_service.name}.{method.name}"
        if "Audit" in method.name:
            continue  # has what the stranger sent
        for real, unreal in zip(CALLS[method.name](two.ids), CALLS[method.name](nobody), strict=True):
            bodies = [json_format.MessageToDict(GetMessageClass(method.input_type)(**each)) for each in (real, unreal)]
            given = [{"operation_id": operation, "arguments": body} for body in bodies]
            _compare_tool(tally, two, nobody, "invoke_operation", given)
    print(f"\n{tally.calls} calls of {len(tools)} tools, {len(tally.hints)} hints")
    assert {"fetch_requests", "fetch_request_logs", "read_file", "get_current_state"} <= set(tools)
    assert tally.hints == []
    assert _state(two) == before


def _compare_tool(tally: Tally, two: Two, nobody: Ids, name: str, given: Sequence[dict[str, Any]]) -> None:
    got = [json.dumps(_tools(two.erin, "tools/call", {"name": name, "arguments": each})) for each in given]
    sent = json.dumps(given[0]), json.dumps(given[1])
    tally.compare(f"tool {name} {sorted(given[0])}", two.ids, (got[0], got[1]), sent, nobody)


def _tools(who: Controller, method: str, params: object) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    answer = who.call("/v1/mcp/platform", body, key=who.key, headers=headers)
    assert answer.status == 200, answer.body
    found = answer.json()
    return dict(found.get("result") or {"error": found.get("error")})


def test_every_path(two: Two) -> None:
    tally, nobody = Tally(), Ids()
    before = _state(two)
    # The audit log comes first, before it contains what the stranger sent.
    for (method, path), needed in sorted(ROUTE_PERMISSIONS.items(), key=lambda each: "audit" not in each[0][1]):
        if (method, path) in RUNNERS_SOCKET:
            continue
        for real, unreal in zip(_paths(path, two.ids), _paths(path, nobody), strict=True):
            got = [
                _http(two.carol, method, each, None if method == "GET" else _body(ids))
                for each, ids in ((real, two.ids), (unreal, nobody))
            ]
            sent = (real + json.dumps(_body(two.ids)), unreal)
            tally.compare(f"{method} {path}", two.ids, (got[0], got[1]), sent, nobody)
            if needed is Admission.CALLERS_OF_THE_APP:
                assert got[0].startswith("404"), (method, path, got[0])
    for who in (two.carol, replace(two.carol, key=""), replace(two.carol, key="no:key")):
        for path in ("/{}/{}", "/{}/{}/", "/{}/{}/x", "/queue/{}/{}", "/queue/{}/{}/x"):
            got = [_http(who, "POST", path.format(ids.account, ids.app), {}) for ids in (two.ids, nobody)]
            named = f"{two.ids.account} {two.ids.app}"
            tally.compare(f"POST {path}", two.ids, (got[0], got[1]), (named, ""), nobody)
    print(f"\n{tally.calls} calls of {len(ROUTE_PERMISSIONS)} paths, {len(tally.hints)} hints")
    assert not tally.hints, tally.hints
    assert _state(two) == before


def _http(who: Controller, method: str, path: str, body: object) -> str:
    answer = who.call(path, body, key=who.key or None, method=method)
    return f"{answer.status} {answer.headers.get('content-type')} {answer.body.decode()}"


def _state(two: Two) -> list[object]:
    """Return the account's data, as its owner sees it."""
    alice, ids = two.alice, two.ids

    def listed(noun: str, *columns: str) -> list[list[object]]:
        rows = json.loads(alice.fal(*noun.split(), "--json").stdout)
        return [[row[column] for column in columns] for row in next(iter(rows.values()))]

    kept = [
        alice.call(path, key=alice.key)
        for path in (
            f"/queue/{ids.account}/{ids.app}/requests/{ids.request}",
            f"/queue/workflows/{ids.account}/{ids.workflow}/requests/{ids.run}/status",
            f"/workflows/{ids.account}/{ids.workflow}",
            f"/files/file//data/{ids.file}",
            "/files/list//data",
        )
    ]
    return [
        listed("apps list", "alias", "revision", "keep_alive"),
        listed("apps list-rev", "application_id"),
        listed("runners list", "runner_id"),
        listed("runners execs", "exec_id"),
        listed("environments list", "name"),
        listed("secrets list", "name", "created_at"),
        listed("keys list", "key_id", "expires_at"),
        listed("teams list", "nickname", "role"),
        listed(f"teams members {ids.team}", "user", "role"),
        [(each.status, each.body) for each in kept],
    ]
