"""Workflows: apps that call one another, as a graph of nodes. Nodes have references to earlier outputs.

The form is the published one: `$input` is the caller's input, `$node.images.0.url` a part of a node's output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import TypeGuard

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.names import checked_text
from fal_server.core.queue import Answer, State, WebhookState
from fal_server.core.revisions import Json

INPUT = "input"
MOST_NODES = 200
_MOST_BYTES = 1024 * 1024
_LONGEST_TITLE = 256
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
_NODE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_INDEX = re.compile(r"[0-9]{1,18}")
_APP = re.compile(r"[^/]+/[^/]+")
_REFERENCE = "$"


class NodeKind(StrEnum):
    """The kind of a node, under its published name."""

    RUN = "run"
    DISPLAY = "display"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """One step of a workflow.

    Attributes:
        app: `owner/app`, or `owner/app/path`; empty for a node that only displays something.
        value: the app's input, with references.
        needs: the nodes that come before it.
    """

    node_id: str
    kind: NodeKind
    app: str
    value: Json
    needs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A workflow's nodes by their ids, and its output, with references."""

    nodes: Mapping[str, GraphNode]
    output: Json

    def sorter(self) -> TopologicalSorter[str]:
        """Return a sorter in which each node comes after those it needs."""
        return TopologicalSorter({node.node_id: node.needs for node in self.nodes.values()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A published workflow, with its contents as they were sent.

    Raises:
        InvalidArgument: a name, the title or the contents are not valid.
    """

    account: AccountId
    name: str
    title: str
    contents: Mapping[str, Json]
    is_public: bool
    created_at: datetime

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidArgument(
                "name", f"name {self.name[:80]!r} is not the name of a workflow: use letters, digits, '_', '.', '-'"
            )
        checked_text(self.title, "title", _LONGEST_TITLE)
        if len(json.dumps(self.contents)) > _MOST_BYTES:
            raise InvalidArgument("contents", f"the contents are larger than {_MOST_BYTES} bytes")
        graph_of(self.contents)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRun:
    """One call of a workflow.

    Attributes:
        contents: the workflow's contents at the call; later changes do not affect the run.
        caller: the id of the key.
        cancelled: its caller asked to cancel it.
        answer: its response; None until it is completed.
        webhook_url: called when the run is completed; None calls nobody.
        webhook_at: when to try that next; None if it is not to be tried.
    """

    account: AccountId
    run_id: str
    workflow: str
    contents: Mapping[str, Json]
    input: Json = field(repr=False)
    caller: str
    created_at: datetime
    cancelled: bool = False
    completed_at: datetime | None = None
    answer: Answer | None = None
    error: str | None = None
    error_type: str | None = None
    webhook_url: str | None = field(repr=False, default=None)
    webhook: WebhookState = WebhookState.NONE
    webhook_attempts: int = 0
    webhook_at: datetime | None = None

    @property
    def state(self) -> State:
        """The state, in the queue's words."""
        return State.IN_PROGRESS if self.completed_at is None else State.COMPLETED


class NoSuchValue(Exception):
    """A reference leads to no value."""


def graph_of(contents: Mapping[str, Json]) -> Graph:
    """Return the graph that a workflow's contents describe.

    Raises:
        InvalidArgument: the contents are not a workflow; the text names the node.
    """
    described = contents.get("nodes")
    if not isinstance(described, Mapping) or len(described) > MOST_NODES:
        raise _bad(f"nodes are missing, or are more than {MOST_NODES}")
    nodes = {node_id: _node(node_id, each) for node_id, each in described.items()}
    output = contents.get("output")
    if not output:
        raise _bad("output is missing: name what the workflow returns")
    graph = Graph(nodes=nodes, output=output)
    wanted = {"output": frozenset(_referees(output, "output")) - {INPUT}}
    wanted |= {f"node {node_id!r}": node.needs for node_id, node in nodes.items()}
    for who, needs in wanted.items():
        unknown = needs - nodes.keys()
        if unknown:
            raise _bad(f"{who} needs {min(unknown)[:80]!r}, and there is no such node")
    try:
        graph.sorter().prepare()
    except CycleError as error:
        raise _bad(f"these nodes wait for one another: {', '.join(error.args[1])}") from None
    return graph


def hydrate(value: Json, values: Mapping[str, Json]) -> Json:
    """Return a value with its references replaced.

    Args:
        values: the outputs of nodes by their ids, and the caller's input.

    Raises:
        NoSuchValue: a reference leads to no value; the text names it.
    """
    if isinstance(value, str):
        return _looked_up(value, values) if value.startswith(_REFERENCE) else value
    if isinstance(value, Mapping):
        return {key: hydrate(each, values) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [hydrate(each, values) for each in value]
    return value


def _looked_up(reference: str, values: Mapping[str, Json]) -> Json:
    name, *parts = reference[1:].split(".")
    if name not in values:
        raise NoSuchValue(f"{reference}: there is no {name!r}")
    found, path = values[name], name
    for part in parts:
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif _is_list(found) and _INDEX.fullmatch(part) and int(part) < len(found):
            found = found[int(part)]
        else:
            raise NoSuchValue(f"{reference}: {path} has no {part!r}")
        path += f".{part}"
    return found


def _is_list(value: Json) -> TypeGuard[Sequence[Json]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _node(node_id: str, described: Json) -> GraphNode:
    who = f"node {node_id[:80]!r}"
    if not isinstance(described, Mapping):
        raise _bad(f"{who} is not an object")
    if not _NODE_ID.fullmatch(node_id) or node_id == INPUT:
        raise _bad(f"{who} has no usable id: use letters, digits, '_' and '-', and not {INPUT!r}")
    word = described.get("type")
    if word not in tuple(NodeKind):
        raise _bad(f"{who} has type {str(word)[:80]!r}: use run or display")
    kind = NodeKind(str(word))
    app = described.get("app") if kind is NodeKind.RUN else ""
    if not isinstance(app, str) or (kind is NodeKind.RUN and not _APP.match(app)):
        raise _bad(f"{who} has app {str(app)[:80]!r}: write owner/app or owner/app/path")
    value = described.get("input" if kind is NodeKind.RUN else "fields")
    if kind is NodeKind.RUN and not isinstance(value, Mapping):
        raise _bad(f"{who}: its input is not an object")
    named = described.get("depends", [])
    listed = [each for each in named if isinstance(each, str)] if _is_list(named) else None
    if listed is None or listed != named:
        raise _bad(f"{who}: depends is not a list of nodes")
    needs = {*listed, *_referees(value, who)} - {INPUT}
    return GraphNode(node_id=node_id, kind=kind, app=app, value=value, needs=frozenset(needs))


def _referees(value: Json, who: str) -> Iterator[str]:
    """Yield the names at the start of a value's references."""
    if isinstance(value, str):
        if value.startswith(_REFERENCE):
            parts = value[1:].split(".")
            if not all(part.isidentifier() or _NODE_ID.fullmatch(part) for part in parts):
                raise _bad(f"{who}: {value[:80]!r} is not a reference: write $node.field or $node.list.0")
            yield parts[0]
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _referees(each, who)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _referees(each, who)


def _bad(detail: str) -> InvalidArgument:
    return InvalidArgument("contents", f"the contents are not a workflow: {detail}")
