"""The tools that show an account's resources: fal's, under their published names."""

from __future__ import annotations

from collections.abc import Mapping

from fal_mcp.calls import Call, Platform, Refused, asked, asked_object, contract, objects
from fal_mcp.operations import (
    ANALYTICS,
    EVENTS,
    LIST_APPS,
    LIST_DIRECTORY,
    LIST_ROOT,
    LOGS,
    QUEUE_SIZE,
    READ_FILE,
    REQUESTS,
    REVISIONS,
    RUNNER_HISTORY,
    USAGE,
    Operation,
)
from fal_mcp.schemas import ENDPOINT, TEXT, Schema, arguments, described
from fal_mcp.tools import Arguments, Tool

_MOST_READ = 48 * 1024
_OFFSET: Schema = {"type": "integer", "minimum": 0, "description": "Where to begin, in bytes; by default 0."}
NO_MODELS = (
    "a controller serves no models of the fal cloud, so there are no requests to them: fetch_requests lists those to "
    "your own apps"
)


def split(endpoint_id: object) -> tuple[str, str]:
    """Return the owner and the name of an app.

    Raises:
        Refused: the id is malformed.
    """
    owner, slash, name = str(endpoint_id).partition("/")
    if not (owner and slash and name) or "/" in name:
        raise Refused(400, f"endpoint_id is {str(endpoint_id)[:80]!r}: write it as `owner/name`, as list_apps shows it")
    return owner, name


async def own_app(platform: Platform, endpoint_id: object) -> str:
    """Return the name of the caller's app, for calls to the contract.

    Raises:
        Refused: it belongs to another account.
    """
    owner, name = split(endpoint_id)
    caller = await asked_object(platform, contract("Keys.GetCaller"))
    if owner not in (caller.get("nickname"), caller.get("account")):
        raise Refused(404, f"app {owner}/{name} not found: your key is of {caller.get('nickname')}")
    return name


def _tool(name: str, operation: Operation, *, about: str = "") -> Tool:
    """Return a tool for one operation. The path's `owner` and `name` become one argument."""
    of_app = operation.places == ["owner", "name"]
    properties: Mapping[str, Schema] = {"endpoint_id": ENDPOINT, **operation.query} if of_app else operation.query

    async def run(platform: Platform, given: Arguments) -> object:
        if not of_app:
            return await asked(platform, operation.call(given))
        rest = {key: value for key, value in given.items() if key != "endpoint_id"}
        owner, app = split(given.get("endpoint_id", ""))
        return await asked(platform, operation.call({**rest, "owner": owner, "name": app}))

    required = ("endpoint_id",) if of_app else operation.required
    return Tool(
        name=name,
        about=f"{operation.about} {about}".strip(),
        schema=arguments(properties, required),
        permission=operation.permission,
        run=run,
    )


async def _state(platform: Platform, given: Arguments) -> object:
    endpoint_id = given.get("endpoint_id", "")
    owner, _ = split(endpoint_id)
    name = await own_app(platform, endpoint_id)
    found = await asked_object(platform, contract("Apps.ExplainApp", applicationName=name))
    queue = await asked_object(platform, QUEUE_SIZE.call({"owner": owner, "name": name}))
    app, load, decision = (_part(found, key) for key in ("app", "load", "decision"))
    return {
        "endpoint_id": endpoint_id,
        "runners": {
            str(each.get("state", "RUNNING")).lower(): each.get("count", 0) for each in objects(found.get("runners"))
        },
        "requests_in_flight": load.get("inFlight", 0),
        "requests_waiting": load.get("queued", 0),
        "queue_size": queue.get("queue_size"),
        "wanted": decision.get("arithmetic"),
        "revision": app.get("revision"),
        "next_revision": found.get("nextRevision"),
        "failed_starts": found.get("failedStarts", 0),
        "last_failure": found.get("lastFailure"),
        "min_concurrency": app.get("minConcurrency", 0),
        "max_concurrency": app.get("maxConcurrency", 0),
        "max_multiplexing": app.get("maxMultiplexing", 0),
        "recent_decisions": objects(found.get("decisions"))[-10:],
    }


async def _list_files(platform: Platform, given: Arguments) -> object:
    path = str(given.get("path") or "").strip("/")
    return await asked(platform, LIST_DIRECTORY.call({"dir": path}) if path else LIST_ROOT.call({}))


async def _read_file(platform: Platform, given: Arguments) -> object:
    path, offset = str(given.get("path") or "").strip("/"), int(str(given.get("offset") or 0).partition(".")[0])
    plain = READ_FILE.call({"file": path})
    ranged = {"range": f"bytes={offset}-{offset + _MOST_READ - 1}"}
    try:
        content = await platform.ask(Call(method="GET", path=plain.path, headers=ranged))
    except Refused as refused:
        if refused.status != 416:
            raise
        content = b""  # the file ends before the offset
    if b"\0" in content:
        raise Refused(400, f"{path} is not text: `fal files download` fetches it")
    return {
        "path": path,
        "offset": offset,
        "text": content.decode("utf-8", "replace"),
        "next_offset": offset + len(content) if len(content) == _MOST_READ else None,
    }


async def _model_requests(platform: Platform, given: Arguments) -> object:
    raise Refused(501, NO_MODELS)


def _part(found: Mapping[str, object], name: str) -> dict[str, object]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


READING = (
    _tool("list_apps", LIST_APPS, about="Its `endpoint_id`s name apps to all other tools."),
    _tool("fetch_requests", REQUESTS, about="Begin here when requests fail: it gives their ids."),
    _tool("fetch_request_logs", LOGS),
    _tool("get_analytics", ANALYTICS, about="It shows whether a failure is one or many."),
    _tool("fetch_events", EVENTS, about="It shows what changed around a time."),
    _tool("list_revisions", REVISIONS),
    _tool("get_runner_history", RUNNER_HISTORY),
    Tool(
        name="get_current_state",
        about="Show what an app does now: runners by state, requests in flight and waiting, the queue, failed starts, "
        "and why it has this many runners. Needs serverless:queue:read too.",
        schema=arguments({"endpoint_id": ENDPOINT}, ["endpoint_id"]),
        permission="serverless:apps:read",
        run=_state,
    ),
    _tool("get_usage", USAGE),
    Tool(
        name="list_files",
        about="List a directory of /data, which all apps of the account share.",
        schema=arguments({"path": described(TEXT, "The directory; by default the top.")}),
        permission=LIST_ROOT.permission,
        run=_list_files,
    ),
    Tool(
        name="read_file",
        about=f"Read a text file of /data, {_MOST_READ // 1024} KiB at a time.",
        schema=arguments({"path": described(TEXT, "The file."), "offset": _OFFSET}, ["path"]),
        permission=READ_FILE.permission,
        run=_read_file,
    ),
    Tool(
        name="fetch_model_requests",
        about="Not served: a controller has no models of the fal cloud. fetch_requests lists those to your own apps.",
        schema={"type": "object"},
        run=_model_requests,
    ),
)
