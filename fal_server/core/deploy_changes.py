"""Compares a planned deploy with the current state. It lists the controller's steps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from fal_server.core.actions import Action, Create, Drain, Drop
from fal_server.core.apps import App
from fal_server.core.counting import counted
from fal_server.core.machines import Node
from fal_server.core.places import elsewhere, may_be_in
from fal_server.core.revisions import Json, Revision
from fal_server.core.runners import Runner
from fal_server.core.scaling import Scaling, carried_over

# Longer texts are compared by their hash, and shown as that.
_LONGEST = 300
_PASSWORD = re.compile(r"://[^/\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change by a deploy, as texts for people.

    Attributes:
        name: as in a deploy's options; "code" and "files" for these.
        current: the value before; empty for a new app.
        planned: the value after.
    """

    name: str
    current: str
    planned: str


def changes(app: App | None, current: Revision | None, after: App, planned: Revision) -> tuple[Change, ...]:
    """Return the differences in a fixed order. For a new app, return everything that is set.

    Args:
        app, current: the app and its revision; None for a new app.
        after: the app after the deploy.
        planned: its revision after the deploy.
    """
    before = {} if app is None or current is None else _described(app, current)
    then = _described(after, planned)
    names = [*then, *(name for name in before if name not in then)]
    return tuple(
        Change(name=name, current=before.get(name, ""), planned=then.get(name, ""))
        for name in names
        if before.get(name, "") != then.get(name, "")
    )


def kept(given: Mapping[str, int | tuple[str, ...]], after: App, planned: Revision) -> str:
    """Say which scaling settings the app keeps though its code names others. Empty if there are none.

    Args:
        given: the settings that the code names; an empty one names nothing.
        after: the app once the deploy is done, or about to roll.
        planned: its revision then.
    """
    scaling = _scaling_after(after, planned)
    differing = [
        f"{name} {_setting(scaling, name) or 'none'} (the code has {_setting(planned.scaling, name) or 'none'})"
        for name, value in given.items()
        if value != () and getattr(scaling, name) != getattr(planned.scaling, name)
    ]
    if not differing:
        return ""
    return f"{after.name} keeps {', '.join(differing)}: `fal deploy --reset-scale` takes what the code has"


def steps(
    app: App | None, after: App, planned: Revision, actions: Sequence[Action], runners: Sequence[Runner]
) -> list[str]:
    """Return the controller's steps after the deploy.

    Args:
        app: the app before the deploy; None for a new one.
        after: the app after the deploy: on the revision, or about to roll to it.
        planned: the revision.
        actions: the reconciler's plan for `after`.
        runners: the app's runners.
    """
    created = [action for action in actions if isinstance(action, Create)]
    new = sum(action.revision_id == planned.revision_id for action in created)
    gone = {action.runner_id for action in actions if isinstance(action, Drain | Drop)}
    said: list[str] = []
    if new:
        types = " or ".join(after.next_scaling.machine_types if after.next_scaling else planned.scaling.machine_types)
        said.append(f"start {counted(new, 'runner')} of the new revision ({types})")
    if app is not None and after.next_revision_id == planned.revision_id:
        said.append("move the app once that is ready, and keep it as it is if that fails")
        gone = {runner.runner_id for runner in runners if not runner.ended}
    elif app is not None:
        said.append("move the app at once")
    if gone:
        said.append(
            f"end {counted(len(gone), 'runner')} of revision {app.revision_id if app else ''}, after open requests"
        )
    if not new and planned.serves_http:
        said.append("start the first runner with the first request")
    return said


def lack_everywhere(
    machine_types: Iterable[str], num_gpus: int | None, regions: Collection[str], nodes: Sequence[Node]
) -> str:
    """Return why no node could ever run such a runner. Empty if one could, or if no node is known."""
    lacks: list[str] = []
    known = frozenset(node.region for node in nodes)
    allowed = [node for node in nodes if may_be_in(node.region, regions, known)]
    if nodes and not allowed:
        return elsewhere(regions, known)
    for node in allowed:
        found, lack = node.machine_types.choose(machine_types, num_gpus, node.total)
        if found is not None:
            return ""
        lacks.append(lack.replace("no node has room", f"node {node.name} has no room"))
    return "; ".join(lacks)


def _described(app: App, revision: Revision) -> dict[str, str]:
    """Return all settings that a deploy sets, as texts without secrets."""
    found: dict[str, str] = {}
    if revision.function is not None:
        found["code"] = f"sha256:{revision.function.blob[:12]}"
    if revision.setup is not None:
        found["setup"] = f"sha256:{revision.setup.blob[:12]}"
    found["entrypoint"] = revision.entrypoint or ""
    if revision.files:
        names = sorted(f"{file.relative_path} {file.hash}" for file in revision.files)
        found["files"] = f"{len(names)} (sha256:{_hash(names)})"
    for spec in revision.environments[:1]:
        found["kind"] = spec.kind
        found |= {key: _text(value, opaque=spec.kind != "virtualenv") for key, value in spec.configuration.items()}
    found["auth"] = (app.next_auth_mode or app.auth_mode).value
    scaling = _scaling_after(app, revision)
    for field in fields(Scaling):
        found[field.name] = _setting(scaling, field.name)
    found["num_gpus"] = "" if revision.num_gpus is None else str(revision.num_gpus)
    found["secrets"] = "all that are exposed" if revision.secret_names is None else ", ".join(revision.secret_names)
    found["exposed_port"] = "" if revision.exposed_port is None else str(revision.exposed_port)
    found["metrics_port"] = "" if revision.metrics_port is None else str(revision.metrics_port)
    check = revision.health_check
    found["health_check"] = "" if check is None else f"{check.method} {check.path}"
    if check is not None:
        rest = [check.start_period_seconds, check.timeout_seconds, check.failure_threshold, check.call_regularly]
        found["health_check"] += f" ({', '.join(map(str, rest))})"
    found["termination_grace_period_seconds"] = str(revision.termination_grace_seconds)
    found["private_logs"] = str(revision.private_logs).lower()
    found["retry_config"] = _text(revision.retry_config or "", opaque=False)
    found["skip_retry_conditions"] = ", ".join(revision.skip_retry_conditions)
    return {name: text for name, text in found.items() if text}


def _setting(scaling: Scaling, name: str) -> str:
    value = getattr(scaling, name)
    return ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)


def _scaling_after(app: App, revision: Revision) -> Scaling:
    """Return the settings after the app has moved to the revision."""
    if app.next_revision_id != revision.revision_id:
        return app.scaling
    return app.next_scaling or carried_over(app.scaling, revision.scaling)


def _text(value: Json, *, opaque: bool) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value):
        text = ", ".join(str(one) for one in value)
    else:
        text = json.dumps(value, sort_keys=True, default=dict)
    if opaque or isinstance(value, Mapping) or len(text) > _LONGEST:
        return f"sha256:{_hash([text])}"  # an image's configuration contains passwords
    return _PASSWORD.sub("://****@", text)


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
