"""The published platform API of a real controller. Answers have the described shape and are true."""

from __future__ import annotations

import http.client
import json
import re
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fal_server.http.routes.permissions import ROUTE_PERMISSIONS, RUNNERS_SOCKET
from fal_server.http.routes.platform.requests import METRICS
from tests.support.controller import ROOT, Answer, Controller
from tests.support.platform_shapes import OPERATIONS, faults_of, operation_of
from tests.support.waiting import until

APP = """
import fal

class Shop(fal.App, name="{name}", keep_alive=300, min_concurrency=1):
    app_auth = "private"

    @fal.endpoint("/")
    def sell(self) -> dict:
        print("sold one")
        return {{"sold": {number}}}

    @fal.endpoint("/back")
    def give_back(self) -> dict:
        raise ValueError("no receipt")
"""
# Served by the controller, each with its route.
SERVED = {
    operation_of(method, path): (method, path)
    for method, path in ROUTE_PERMISSIONS
    if path.startswith("/v1/") and (method, path) not in {*RUNNERS_SOCKET, ("POST", "/v1/mcp/platform")}
}


@dataclass
class Api:
    """A client whose answers are checked."""

    controller: Controller
    app: str
    revision: str
    runner: str

    def call(
        self, operation: str, body: object = None, query: str = "", key: str | None = None, **named: str
    ) -> Answer:
        method, path = operation.split(" ")
        path = re.sub(r"\{([^}]*)\}", lambda found: quote(named[found[1]], safe="/"), path)
        whose = self.controller.key if key is None else key
        answer = self.controller.call(f"/v1{path}{query}", body, key=whose or None, method=method)
        assert faults_of(operation, answer.status, answer.headers.get("content-type"), answer.body) == [], operation
        return answer

    def of_app(self, operation: str, query: str = "", app: str | None = None, **more: str) -> Answer:
        method, _, rest = operation.partition(" ")
        return self.call(
            f"{method} /serverless/apps/{{owner}}/{{name}}/{rest}",
            None,
            query,
            owner="local",
            name=app or self.app,
            **more,
        )

    def of_endpoints(self, what: str, query: str, endpoint: str = "") -> Answer:
        return self.call(f"GET /serverless/{what}", query=f"?endpoint_id=local/{self.app}{endpoint}{query}")

    def upload(self, path: str, text: str) -> Answer:
        head = 'Content-Disposition: form-data; name="file_upload"; filename="x"'
        request = urllib.request.Request(
            f"http://{self.controller.host}/v1/serverless/files/file/local/{path}",
            f"--b\r\n{head}\r\n\r\n{text}\r\n--b--\r\n".encode(),
            {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Key {self.controller.key}"},
        )
        with urllib.request.urlopen(request) as sent:
            answer = Answer(status=sent.status, body=sent.read(), headers=dict(sent.headers))
        operation = "POST /serverless/files/file/local/{target_path}"
        assert faults_of(operation, answer.status, answer.headers.get("content-type"), answer.body) == []
        return answer

    def file(self, path: str) -> str:
        self.upload(path, "text")
        return path


@pytest.fixture(scope="module")
def api(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    name, source = f"shop-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("shop") / "app.py"
    source.write_text(APP.format(name=name, number=1))
    controller.fal("deploy", str(source), "--message", "the first")
    source.write_text(APP.format(name=name, number=2))
    controller.fal("deploy", str(source))
    controller.fal("apps", "scale", name, "--keep-alive", "299")
    assert controller.call(f"/local/{name}/", {}, key=controller.key).json() == {"sold": 2}
    (app,) = [
        one for one in json.loads(controller.fal("apps", "list", "--json").stdout)["apps"] if one["alias"] == name
    ]
    runners = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    runner = next(one["runner_id"] for one in runners if one["alias"] == name and one["revision"] == app["revision"])
    yield Api(controller, name, app["revision"], runner)
    controller.fal("apps", "delete", name)


def test_apps_are_listed_with_their_endpoints(api: Api) -> None:
    found = api.call("GET /serverless/apps", query=f"?search={api.app[5:].upper()}&expand=endpoints").json()
    (app,) = found["apps"]
    assert (app["endpoint_id"], app["auth_mode"], app["keep_alive"]) == (f"local/{api.app}", "private", 299)
    assert app["endpoints"] == [f"local/{api.app}", f"local/{api.app}/back"]
    (app,) = api.call("GET /serverless/apps", query=f"?search={api.app}").json()["apps"]
    assert "endpoints" not in app
    assert api.call("GET /serverless/apps", query="?search=nothing-of-that-name").json() == {"apps": []}
    refused = api.call("GET /serverless/apps", query="?expand=secrets")
    assert (refused.status, refused.json()["error"]["type"]) == (400, "validation_error")


def test_errors_have_the_described_form(api: Api) -> None:
    answer = api.call("GET /serverless/apps", key="")
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authorization_error")
    assert answer.json()["error"]["request_id"] == answer.headers["x-fal-request-id"]
    assert answer.headers["www-authenticate"] == "Key"
    caller = api.controller.fal("keys", "create", "--scope", "API", "--json").stdout
    made = json.loads(caller)
    denied = api.call("GET /keys", key=f"{made['key_id']}:{made['key_secret']}")
    assert (denied.status, denied.json()["error"]["type"]) == (403, "authorization_error")
    unknown = api.of_app("GET queue", app="nobody")
    assert (unknown.status, unknown.json()["error"]["type"]) == (404, "not_found")
    nowhere = api.controller.call("/v1/nothing", key=api.controller.key)
    assert (nowhere.status, nowhere.json()["error"]["type"]) == (404, "not_found")


def test_the_queue_is_counted_and_flushed_once_a_key(api: Api) -> None:
    api.controller.fal("apps", "scale", api.app, "--min-concurrency", "0", "--max-concurrency", "0")
    api.controller.fal("runners", "kill", api.runner)
    runner = f"/runners/{api.runner}"
    until(lambda: api.controller.call(runner, key=api.controller.key).json()["ended_at"], "the app has no runner")
    path = f"/queue/local/{api.app}/"
    for _ in range(3):
        assert api.controller.call(path, {}, key=api.controller.key).status == 200
    assert api.of_app("GET queue").json() == {"queue_size": 3}
    flush = f"/v1/serverless/apps/local/{api.app}/queue"

    def flushed(key: str) -> int:
        headers = {"Idempotency-Key": key}
        answer = api.controller.call(flush, key=api.controller.key, method="DELETE", headers=headers)
        assert answer.body == b""
        return answer.status

    assert flushed("a") == 204
    assert api.of_app("GET queue").json() == {"queue_size": 0}
    api.controller.call(path, {}, key=api.controller.key)
    assert flushed("a") == 204
    assert api.of_app("GET queue").json() == {"queue_size": 1}
    assert api.of_app("DELETE queue").status == 204
    assert api.of_app("GET queue").json() == {"queue_size": 0}
    api.controller.fal("apps", "scale", api.app, "--min-concurrency", "1", "--max-concurrency", "2")


def test_events_tell_what_happened_and_by_which_key(api: Api) -> None:
    def of(categories: str) -> list[dict[str, Any]]:
        return api.of_app("GET events", f"?category={categories}&limit=1000").json()["events"]

    deploys, changes = of("deployment_started,deployment_ended"), of("config_changed")
    assert [event["category"] for event in deploys] == ["deployment_ended", "deployment_started"] * 2
    assert deploys[0]["payload"]["new_application_id"] == api.revision
    assert deploys[0]["payload"]["old_application_id"] == deploys[2]["payload"]["new_application_id"]
    key_id = api.controller.key.partition(":")[0]
    for event in (*deploys, *changes):
        assert event["payload"]["actor"]["nickname"] == "local"
        assert event["payload"]["actor"]["full_name"].startswith(f"key {key_id}")
    assert changes
    started = of("runner_started")
    assert api.runner in {event["payload"]["job_id"] for event in started}


def test_payloads_are_those_of_queued_requests_for_keys_that_may_call(api: Api) -> None:
    whole = {"n": [1, 2], "long": "x" * 70_000}
    path = f"/queue/local/{api.app}/requests"
    sent = {}
    for body in ({"n": 1}, whole):
        answer = api.controller.call(f"/queue/local/{api.app}/", body, key=api.controller.key).json()
        sent[answer["request_id"]] = body
    direct = api.controller.call(f"/local/{api.app}/", {"n": 2}, key=api.controller.key)
    for one in sent:
        status = f"{path}/{one}/status"
        until(
            lambda status=status: api.controller.call(status, key=api.controller.key).json()["status"] == "COMPLETED",
            "the request is completed",
        )

    def of(request_id: str, expand: str = "&expand=payloads") -> dict[str, object]:
        return api.of_endpoints("requests/by-endpoint", f"&request_id={request_id}{expand}").json()["items"][0]

    small, large = sent
    assert (of(small)["json_input"], of(small)["json_output"]) == ({"n": 1}, {"sold": 2})
    assert "json_input" not in of(large), "it is too large to show"
    assert of(large)["json_output"] == {"sold": 2}
    assert not {"json_input", "json_output"} & of(small, "").keys()
    assert not {"json_input", "json_output"} & of(direct.headers["x-fal-request-id"]).keys()
    reader = json.loads(api.controller.fal("keys", "create", "--preset", "READONLY", "--json").stdout)
    refused = api.call(
        "GET /serverless/requests/by-endpoint",
        query=f"?endpoint_id=local/{api.app}&expand=payloads",
        key=f"{reader['key_id']}:{reader['key_secret']}",
    )
    assert (refused.status, refused.json()["error"]["type"]) == (403, "authorization_error")


def test_pages_of_events_hold_each_once(api: Api) -> None:
    whole = api.of_app("GET events", "?limit=1000").json()
    assert whole["has_more"] is False
    times = [event["created_at"] for event in whole["events"]]
    assert times == sorted(times, reverse=True)
    found, cursor = [], ""
    while cursor is not None:
        page = api.of_app("GET events", f"?limit=2&cursor={cursor}").json()
        assert page["has_more"] is (page["next_cursor"] is not None)
        found, cursor = found + page["events"], page["next_cursor"]
    ids = [event["event_id"] for event in found]
    # The runners of the app may change meanwhile.
    assert [one for one in ids if one in {event["event_id"] for event in whole["events"]}] == [
        event["event_id"] for event in whole["events"]
    ]
    assert len(set(ids)) == len(ids)
    for cursor in ("x", "WzFd", "bnVsbA"):
        assert api.of_app("GET events", f"?cursor={cursor}").status == 400
    assert api.of_app("GET events", "?start=2026-01-02&end=2026-01-01").status == 400
    assert api.of_app("GET events", "?category=party").status == 400


def test_revisions_are_the_newest_first_with_who_deployed_them(api: Api) -> None:
    until(lambda: api.of_app("GET revisions").json()["revisions"][0]["status"] == "deployed", "the app has moved")
    second, first = api.of_app("GET revisions").json()["revisions"]
    assert (second["revision_id"], second["is_current"], second["message"]) == (api.revision, True, None)
    assert (first["is_current"], first["message"]) == (False, "the first")
    assert second["deployed_by"].startswith(f"key {api.controller.key.partition(':')[0]}")
    page = api.of_app("GET revisions", "?limit=1").json()
    assert (page["revisions"], page["has_more"]) == ([second], True)
    page = api.of_app("GET revisions", f"?limit=1&cursor={page['next_cursor']}").json()
    assert (page["revisions"], page["next_cursor"]) == ([first], None)


def test_files_are_listed_written_and_read(api: Api) -> None:
    name = f"f{uuid.uuid4().hex}"
    answer = api.controller.call(f"/v1/serverless/files/file/local/{name}/a.txt", {}, key=api.controller.key)
    assert answer.status == 400
    assert api.upload(f"{name}/a.txt", "hello").json() is True
    (entry,) = api.call("GET /serverless/files/list/{dir}", dir=name).json()
    assert (entry["path"], entry["name"], entry["size"], entry["is_file"]) == (f"/data/{name}/a.txt", "a.txt", 5, True)
    assert api.call("GET /serverless/files/file/{file}", file=f"{name}/a.txt").body == b"hello"
    assert api.call("GET /serverless/files/file/{file}", file=f"data/{name}/a.txt").body == b"hello"
    assert name in {one["name"] for one in api.call("GET /serverless/files/list").json()}
    assert api.call("GET /serverless/files/file/{file}", file=f"{name}/none").status == 404
    assert api.call("GET /serverless/files/list/{dir}", dir=f"{name}/none").json() == []
    assert api.call("GET /serverless/files/list/{dir}", dir="../etc").status in (400, 404)
    by_url = "POST /serverless/files/file/url/{file}"
    assert api.call(by_url, {"url": "file:///etc/passwd"}, file=f"{name}/b").status == 400
    assert api.call(by_url, {"url": f"http://{api.controller.host}/health"}, file=f"{name}/b").json() is True
    assert json.loads(api.call("GET /serverless/files/file/{file}", file=f"{name}/b").body)["status"] == "ok"


def test_keys_are_made_listed_in_pages_and_revoked(api: Api) -> None:
    note = f"note-{uuid.uuid4().hex}"
    made = api.call("POST /keys", {"alias": note}).json()
    assert made["key"] == f"{made['key_id']}:{made['key_secret']}"
    assert api.controller.call(f"/local/{api.app}/", {}, key=made["key"]).status == 200
    found, cursor = [], ""
    while cursor is not None:
        page = api.call("GET /keys", query=f"?limit=1&expand=creator_info&cursor={cursor}").json()
        found, cursor = found + page["keys"], page["next_cursor"]
    (mine,) = [key for key in found if key["alias"] == note]
    assert (mine["key_id"], mine["creator_nickname"]) == (made["key_id"], "local")
    assert made["key_secret"] not in json.dumps(found)
    for _ in range(2):
        assert api.call("DELETE /keys/{key_id}", key_id=made["key_id"]).status == 204
    assert api.controller.call(f"/local/{api.app}/", {}, key=made["key"]).status == 401
    admin = api.controller.key.partition(":")[0]
    assert api.call("DELETE /keys/{key_id}", key_id=admin).status == 403
    for body in ({}, {"alias": ""}, {"alias": "x" * 256}, {"alias": 1}):
        assert api.call("POST /keys", body).status == 400


def test_meta_needs_no_key(api: Api) -> None:
    assert api.call("GET /meta", key="").json() == {"webhook_ip_ranges": []}


def test_the_page_says_which_operations_are_served(api: Api) -> None:
    page = (ROOT / "docs/reference/platform-api.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (served|not served)", page, re.MULTILINE))
    assert set(rows) == set(OPERATIONS)
    assert {name for name, word in rows.items() if word == "served"} == set(SERVED)


def test_requests_are_listed_by_endpoint_and_added_up(api: Api) -> None:
    before = api.of_endpoints("analytics", "&expand=summary,request_count").json()["summary"]
    assert api.controller.call(f"/local/{api.app}/back", {}, key=api.controller.key).status == 500
    assert api.controller.call(f"/local/{api.app}/", {}, key=api.controller.key).status == 200
    found, cursor = [], ""
    while cursor is not None:
        page = api.of_endpoints("requests/by-endpoint", f"&limit=1&cursor={cursor}").json()
        found, cursor = found + page["items"], page["next_cursor"]
    assert [one["ended_at"] for one in found] == sorted((one["ended_at"] for one in found), reverse=True)
    newest, failed = found[:2]
    assert (newest["endpoint_id"], newest["status_code"]) == (f"local/{api.app}", 200)
    assert (failed["endpoint_id"], failed["status_code"]) == (f"local/{api.app}/back", 500)
    assert uuid.UUID(newest["runner_id"])

    def only(query: str, endpoint: str = "") -> set[str]:
        items = api.of_endpoints("requests/by-endpoint", f"&limit=100{query}", endpoint).json()["items"]
        return {one["request_id"] for one in items}

    assert failed["request_id"] in only("&status=error")
    assert newest["request_id"] not in only("&status=error")
    assert only("", "/back") == {one["request_id"] for one in found if one["endpoint_id"].endswith("/back")}
    assert only(f"&request_id={newest['request_id']}") == {newest["request_id"]}
    assert only("&start=2020-01-01&end=2020-01-02") == set()
    slowest, cursor = [], ""
    while cursor is not None:
        page = api.of_endpoints("requests/by-endpoint", f"&sort_by=duration&limit=1&cursor={cursor}").json()
        slowest, cursor = slowest + page["items"], page["next_cursor"]
    assert [one["duration"] for one in slowest] == sorted((one["duration"] for one in slowest), reverse=True)
    assert {one["request_id"] for one in slowest} == {one["request_id"] for one in found}
    every = "time_series,summary," + ",".join(METRICS)
    numbers = api.of_endpoints("analytics", f"&timezone=Asia/Kolkata&timeframe=day&expand={every}").json()
    assert sum(one["request_count"] for one in numbers["summary"]) == len(found)
    assert len(found) == sum(one["request_count"] for one in before) + 2
    assert sum(one["request_count"] for part in numbers["time_series"] for one in part["results"]) == len(found)
    assert {part["bucket"][-14:] for part in numbers["time_series"]} == {"00:00:00+05:30"}
    back = next(one for one in numbers["summary"] if one["endpoint_id"].endswith("/back"))
    assert back["error_count"] == back["request_count"] > 0
    assert back["p50_duration"] <= back["p99_duration"]
    for query in ("&expand=summary", "&expand=request_count", "&timezone=Moon/Base", "&timeframe=year", "&limit=0"):
        assert api.of_endpoints("analytics", query).status == 400, query
    assert api.call("GET /serverless/analytics").status == 400
    for what in ("analytics", "requests/by-endpoint"):
        assert api.call(f"GET /serverless/{what}", query="?endpoint_id=somebody/else").status == 404
        assert api.of_endpoints(what, "&cursor=x").status == 400


def test_usage_and_counts_of_runners_come_from_the_runners(api: Api) -> None:
    usage = api.call("GET /serverless/usage", query=f"?app={api.app}&expand=summary,time_series").json()
    (row,) = usage["summary"]
    assert (row["app"], row["environment"], row["unit"]) == (api.app, "main", "second")
    assert row["quantity"] > 0
    parts = sum(one["quantity"] for part in usage["time_series"] for one in part["results"])
    assert parts == pytest.approx(row["quantity"], abs=0.01)
    assert api.call("GET /serverless/usage", query="?search=nothing-of-that-name").json()["time_series"] == []
    for aggregation in ("max", "avg"):
        counts = api.of_app("GET runners/history", f"?timeframe=hour&aggregation={aggregation}").json()
        assert (counts["timeframe"], counts["aggregation"]) == ("hour", aggregation)
        assert max(part["running"] + part["idle"] for part in counts["history"]) > 0
    assert api.of_app("GET runners/history", "?start=2020-01-01").status == 400
    assert api.of_app("GET runners/history", app="nobody").status == 404


def test_lines_are_paged_newest_first_and_chosen(api: Api) -> None:
    history, app = "POST /serverless/logs/history", f"?app_id=local/{api.app}"
    assert api.controller.call(f"/local/{api.app}/back", {}, key=api.controller.key).status == 500
    until(lambda: api.call(history, [], f"{app}&search=no%20receipt").json()["items"], "the line is stored")

    def lines(query: str, rules: Sequence[object] = ()) -> list[dict[str, Any]]:
        found, cursor = [], ""
        while cursor is not None:
            page = api.call(history, list(rules), f"{app}&limit=7&cursor={cursor}{query}").json()
            assert page["has_more"] is (page["next_cursor"] is not None)
            found, cursor = found + page["items"], page["next_cursor"]
        return found

    whole = lines("")
    times = [one["timestamp"] for one in whole]
    assert times == sorted(times, reverse=True)
    assert len({(one["labels"]["fal_job_id"], one["timestamp"], one["message"]) for one in whole}) > 7
    assert {one["app"] for one in whole} == {f"local/{api.app}"}
    assert {one["message"] for one in lines("&search=SOLD")} == {"sold one"}
    assert {one["level"] for one in lines("&level=error")} <= {"ERROR"}
    assert {one["revision"] for one in lines(f"&revision={api.revision}")} == {api.revision}
    of_runner = {one["labels"]["fal_job_id"] for one in lines(f"&job_id={api.runner}")}
    assert of_runner == {api.runner}
    assert of_runner == {one["labels"]["fal_job_id"] for one in lines("", [{"key": "fal_job_id", "value": api.runner}])}
    others = lines("", [{"key": "fal_job_id", "value": [api.runner], "condition_type": "not_in"}])
    assert others
    assert api.runner not in {one["labels"]["fal_job_id"] for one in others}
    assert {one["labels"]["source"] for one in lines("&run_source=grpc-register")} <= {"build"}
    assert lines("&run_source=cron") == []
    assert lines("&start=2020-01-01&end=2020-01-02") == []
    for query in ("&level=loud", "&cursor=x", "&limit=1001", "&run_source=x", "&start=x"):
        assert api.call(history, [], app + query).status == 400, query
    for rules in ({}, [1], [{"key": "a"}], [{"key": "a", "value": "b", "condition_type": ["in"]}], [{}] * 51):
        assert api.call(history, rules, app).status == 400, rules
    assert api.call(history, [], "?app_id=somebody/else").status == 404
    assert api.call(history, [], "?app_id=else").status == 400


def test_lines_are_streamed_as_they_come(api: Api) -> None:
    whole = api.call("POST /serverless/logs/stream", [], f"{_ended()}&app_id=local/{api.app}").body.decode()
    sent = [json.loads(one) for one in re.findall(r"^data: (.*)$", whole, re.MULTILINE)]
    assert [one["timestamp"] for one in sent] == sorted(one["timestamp"] for one in sent)
    assert "sold one" in {one["message"] for one in sent}
    url = f"http://{api.controller.host}/v1/serverless/logs/stream?app_id=local/{api.app}&search=sold"
    headers = {"Authorization": f"Key {api.controller.key}"}
    with urllib.request.urlopen(urllib.request.Request(url, b"[]", headers)) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen = {_line_of(stream)["timestamp"]}
        assert api.controller.call(f"/local/{api.app}/", {}, key=api.controller.key).status == 200
        newest = max(seen)
        while (line := _line_of(stream))["timestamp"] <= newest:
            pass
        assert line["message"] == "sold one"


def _line_of(stream: http.client.HTTPResponse) -> dict[str, str]:
    while not (line := stream.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    return json.loads(line[6:])


def _ended() -> str:
    """Return a past time, at which a stream ends."""
    return "?end=" + quote(datetime.now(UTC).isoformat())


# One call of each operation, which is answered as it should be.
CALLS: dict[str, Callable[[Api], Answer]] = {
    "GET /serverless/apps": lambda api: api.call("GET /serverless/apps"),
    "GET /serverless/apps/{owner}/{name}/queue": lambda api: api.of_app("GET queue"),
    "DELETE /serverless/apps/{owner}/{name}/queue": lambda api: api.of_app("DELETE queue"),
    "GET /serverless/apps/{owner}/{name}/events": lambda api: api.of_app("GET events"),
    "GET /serverless/apps/{owner}/{name}/revisions": lambda api: api.of_app("GET revisions"),
    "GET /serverless/files/list": lambda api: api.call("GET /serverless/files/list"),
    "GET /serverless/files/list/{dir}": lambda api: api.call("GET /serverless/files/list/{dir}", dir="data"),
    "GET /serverless/files/file/{file}": lambda api: api.call("GET /serverless/files/file/{file}", file=api.file("g")),
    "POST /serverless/files/file/url/{file}": lambda api: api.call(
        "POST /serverless/files/file/url/{file}", {"url": f"http://{api.controller.host}/health"}, file="health"
    ),
    "POST /serverless/files/file/local/{target_path}": lambda api: api.upload("h", "text"),
    "POST /serverless/logs/history": lambda api: api.call("POST /serverless/logs/history", []),
    "POST /serverless/logs/stream": lambda api: api.call("POST /serverless/logs/stream", [], _ended()),
    "GET /serverless/requests/by-endpoint": lambda api: api.of_endpoints("requests/by-endpoint", ""),
    "GET /serverless/analytics": lambda api: api.of_endpoints("analytics", ""),
    "GET /serverless/metrics": lambda api: api.call("GET /serverless/metrics"),
    "GET /serverless/usage": lambda api: api.call("GET /serverless/usage"),
    "GET /serverless/apps/{owner}/{name}/runners/history": lambda api: api.of_app("GET runners/history"),
    "GET /keys": lambda api: api.call("GET /keys"),
    "POST /keys": lambda api: api.call("POST /keys", {"alias": "one more"}),
    "DELETE /keys/{key_id}": lambda api: api.call("DELETE /keys/{key_id}", key_id=str(uuid.uuid4())),
    "GET /meta": lambda api: api.call("GET /meta", key=""),
}


def test_every_operation_that_is_served_answers_as_described(api: Api) -> None:
    assert set(CALLS) == set(SERVED)
    assert [name for name, call in CALLS.items() if call(api).status >= 300] == []
    print(f"{len(CALLS)} of {len(OPERATIONS)} operations answer as described")


def test_events_tell_of_rollouts_settings_and_failed_deploys(api: Api, tmp_path: Path) -> None:
    def of(category: str) -> dict[str, Any]:
        return api.of_app("GET events", f"?category={category}&limit=1").json()["events"][0]["payload"]

    until(lambda: api.of_app("GET events", "?category=deployment_rolling_ended").json()["events"], "the app has moved")
    started, ended = of("deployment_rolling_started"), of("deployment_rolling_ended")
    for payload in (started, ended):
        assert payload["new_application_id"] == api.revision
    assert started["old_application_id"] == ended["old_application_id"] != api.revision
    assert "actor" in started
    assert "actor" not in ended, "the controller moved the app when the runner was ready"
    api.controller.fal("apps", "scale", api.app, "--keep-alive", "298")
    api.controller.fal("apps", "scale", api.app, "--keep-alive", "299")
    changed = of("config_changed")
    assert (changed["old_config"]["keep_alive"], changed["new_config"]["keep_alive"]) == (298, 299)
    assert changed["old_app_auth_mode"] == changed["new_app_auth_mode"] == "private"
    source = tmp_path / "app.py"
    source.write_text(APP.format(name=api.app, number=3).replace("app_auth", 'secrets = ["NOT_SET"]\n    app_auth'))
    assert api.controller.fal("deploy", str(source), check=False).returncode == 1
    assert "NOT_SET" in of("deployment_failed")["reason"]
    source.write_text(
        APP.format(name=api.app, number=3).replace(
            '    @fal.endpoint("/")',
            "    def setup(self):\n        raise ValueError('not today')\n\n    @fal.endpoint(\"/\")",
        )
    )
    assert api.controller.fal("deploy", str(source), check=False).returncode == 1
    failed = of("deployment_rolling_failed")
    assert failed["old_application_id"] == api.revision
    assert failed["reason"]
    first = started["old_application_id"]
    for revision in (first, api.revision):
        api.controller.fal("apps", "set-rev", api.app, revision, "--strategy", "recreate")
    applied = of("deployment_recreate_applied")
    assert (applied["old_application_id"], applied["new_application_id"]) == (first, api.revision)
    api.controller.fal("apps", "delete-rev", failed["new_application_id"])
