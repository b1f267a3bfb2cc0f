"""Our tools that change something: stop, kill, rollback, scale, redrive. Each shows a plan first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from fal_mcp.calls import Call, Platform, Refused, asked, asked_object, contract, objects, segment
from fal_mcp.operations import REVISIONS
from fal_mcp.plans import Plans, Prepared
from fal_mcp.platform_tools import own_app, split
from fal_mcp.schemas import ENDPOINT, TEXT, Schema, arguments, described
from fal_mcp.tools import Arguments, Tool

Prepare: TypeAlias = "Callable[[Platform, Arguments], Awaitable[Prepared]]"
_MOST_REDRIVEN = 100
_RUNNER: Schema = described(TEXT, "The id of the runner.")
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
# The contract's names of the settings, by the tools' names.
_SETTINGS = {
    "min_concurrency": "minConcurrency",
    "max_concurrency": "maxConcurrency",
    "concurrency_buffer": "concurrencyBuffer",
    "concurrency_buffer_perc": "concurrencyBufferPerc",
    "keep_alive": "keepAlive",
    "scaling_delay": "scalingDelaySeconds",
}
_TOKEN = described(TEXT, "The token of the plan, to carry it out. Leave it out for a plan, which changes nothing.")


async def _stop(platform: Platform, given: Arguments) -> Prepared:
    runner, shown = await _runner(platform, given)
    return Prepared(
        does=f"stop runner {runner}: it gets no further request, those in flight finish, then its process ends",
        now=shown,
        calls=(contract("Runners.StopRunner", runnerId=runner, replaceFirst=given.get("replace_first")),),
    )


async def _kill(platform: Platform, given: Arguments) -> Prepared:
    runner, shown = await _runner(platform, given)
    return Prepared(
        does=f"kill runner {runner} and every process that it started, at once: its requests in flight break",
        now=shown,
        calls=(contract("Runners.KillRunner", runnerId=runner),),
    )


async def _runner(platform: Platform, given: Arguments) -> tuple[str, dict[str, object]]:
    found = await asked_object(platform, contract("Runners.GetRunner", runnerId=given.get("runner_id")))
    runner = found.get("runner")
    runner = runner if isinstance(runner, dict) else {}
    return str(runner.get("runnerId", "")), {
        "app": runner.get("alias"),
        "environment": runner.get("environmentName"),
        "state": str(runner.get("state", "RUNNING")).lower(),
        "requests_in_flight": runner.get("inFlightRequests", 0),
        "revision": runner.get("revision"),
    }


async def _rollback(platform: Platform, given: Arguments) -> Prepared:
    owner, name = split(given.get("endpoint_id", ""))
    found = await asked_object(platform, REVISIONS.call({"owner": owner, "name": name, "limit": 100}))
    revisions = objects(found.get("revisions"))
    place = next((n for n, each in enumerate(revisions) if each.get("is_current")), None)
    if place is None:
        raise Refused(409, f"{owner}/{name} is on none of its last 100 revisions: name a revision_id")
    asked_for, current = given.get("revision_id"), revisions[place]
    if asked_for:
        target = next((each for each in revisions if each.get("revision_id") == asked_for), None)
    else:
        target = next((each for each in revisions[place + 1 :] if each.get("status") != "failed"), None)
    if target is None:
        wanted = f"revision {asked_for!r} among the last 100" if asked_for else "earlier revision to go back to"
        raise Refused(404, f"{owner}/{name} has no {wanted}: list_revisions shows them")
    if target is current:
        raise Refused(409, f"{owner}/{name} is on revision {asked_for} already")
    return Prepared(
        does=f"move {owner}/{name} from revision {current['revision_id']} back to {target['revision_id']}, runner by "
        "runner; its settings stay",
        now={"current": current, "target": target},
        calls=(contract("Apps.SetAlias", alias=name, revision=target["revision_id"]),),
    )


async def _scale(platform: Platform, given: Arguments) -> Prepared:
    wanted = {name: given[name] for name in _SETTINGS if given.get(name) is not None}
    if not wanted:
        raise Refused(400, f"name a setting to change: {', '.join(_SETTINGS)}")
    name = await own_app(platform, given.get("endpoint_id", ""))
    app = (await asked_object(platform, contract("Apps.ExplainApp", applicationName=name))).get("app")
    before = {each: app.get(_SETTINGS[each], 0) if isinstance(app, dict) else None for each in wanted}
    changes = ", ".join(f"{each} {before[each]} -> {value}" for each, value in wanted.items())
    return Prepared(
        does=f"change the settings of {given.get('endpoint_id')}: {changes}",
        now=before,
        calls=(
            contract(
                "Apps.UpdateApplication",
                applicationName=name,
                **{_SETTINGS[each]: value for each, value in wanted.items()},
            ),
        ),
    )


async def _redrive(platform: Platform, given: Arguments) -> Prepared:
    owner, name = split(given.get("endpoint_id", ""))
    base = f"/applications/{segment(owner)}/{segment(name)}/queue"
    query = (("dead", "true"), ("limit", str(_MOST_REDRIVEN)))
    found = await asked_object(platform, Call(method="GET", path=f"{base}/requests", query=query))
    dead = {str(each.get("request_id")): each for each in objects(found.get("requests"))}
    named = given.get("request_ids")
    chosen = [str(each) for each in named] if isinstance(named, list) else list(dead)
    lacking = [each for each in chosen if each not in dead]
    if lacking:
        raise Refused(404, f"{owner}/{name} has given up no request {lacking[0][:80]!r} of the last {_MOST_REDRIVEN}")
    if not chosen:
        raise Refused(409, f"{owner}/{name} has no request that was given up: there is nothing to redrive")
    return Prepared(
        does=f"put {len(chosen)} requests of {owner}/{name} that were given up back into its queue",
        now=[{key: dead[each].get(key) for key in ("request_id", "error_type", "error", "attempt")} for each in chosen],
        calls=(Call(method="POST", path=f"{base}/redrive", query=(("ids", ",".join(chosen)),)),),
    )


def acting(plans: Plans) -> tuple[Tool, ...]:
    """Return the tools that change something; `plans` keeps their plans."""

    def tool(
        name: str, prepare: Prepare, about: str, permission: str, properties: Mapping[str, Schema], required: list[str]
    ) -> Tool:
        async def run(platform: Platform, given: Arguments) -> object:
            token = given.get("plan_token")
            bound = {key: value for key, value in given.items() if key != "plan_token"}
            if token is None:
                prepared = await prepare(platform, bound)
                token, expires_at = plans.make(platform.holder, name, bound, prepared)
                return {
                    "plan": prepared.does,
                    "now": prepared.now,
                    "plan_token": token,
                    "expires_at": expires_at.isoformat(),
                    "next": f"Nothing has changed. To carry it out, call {name} once more with the same arguments and "
                    "this plan_token.",
                }
            prepared = plans.take(str(token), platform.holder, name, bound)
            answers = [await asked(platform, call) for call in prepared.calls]
            return {"done": prepared.does, "answer": answers[-1]}

        return Tool(
            name=name,
            about=f"{about} The first call returns a plan and changes nothing; the second, with plan_token, does it.",
            schema=arguments({**properties, "plan_token": _TOKEN}, required),
            permission=permission,
            run=run,
            acts=True,
        )

    runners, apps = "serverless:runners:write", "serverless:apps:write"
    return (
        tool(
            "stop_runner",
            _stop,
            "Stop a runner in order.",
            runners,
            {
                "runner_id": _RUNNER,
                "replace_first": {"type": "boolean", "description": "Start another in its place before it stops."},
            },
            ["runner_id"],
        ),
        tool("kill_runner", _kill, "Kill a runner at once.", runners, {"runner_id": _RUNNER}, ["runner_id"]),
        tool(
            "rollback_app",
            _rollback,
            "Move an app back to an earlier revision.",
            apps,
            {
                "endpoint_id": ENDPOINT,
                "revision_id": described(TEXT, "The revision; by default the one before that did not fail."),
            },
            ["endpoint_id"],
        ),
        tool(
            "scale_app",
            _scale,
            "Change how many runners an app may have.",
            apps,
            {"endpoint_id": ENDPOINT, **dict.fromkeys(_SETTINGS, _COUNT)},
            ["endpoint_id"],
        ),
        tool(
            "redrive_requests",
            _redrive,
            "Put requests that were given up back into the queue.",
            "serverless:queue:write",
            {
                "endpoint_id": ENDPOINT,
                "request_ids": {
                    "type": "array",
                    "items": TEXT,
                    "minItems": 1,
                    "maxItems": _MOST_REDRIVEN,
                    "description": f"Which; by default the last {_MOST_REDRIVEN}.",
                },
            },
            ["endpoint_id"],
        ),
    )
