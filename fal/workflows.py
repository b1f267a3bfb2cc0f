"""Workflows: graphs of apps. Inputs come from the caller or from other apps.

workflow = create_workflow("portrait", Input, Output)
drawn = workflow.run("owner/draw", {"prompt": workflow.input.prompt})
workflow.set_output({"image": drawn.images[0].url})
workflow.execute({"prompt": "a hill"})     # here, with calls to the apps
workflow.publish("A portrait")             # for callers (workflows/OWNER/portrait)
"""

from __future__ import annotations

import argparse
import graphlib
import json
import sys
import webbrowser
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias, cast

from fal.exceptions import FalServerlessException

if TYPE_CHECKING:
    from pydantic import BaseModel

JSONType: TypeAlias = "dict[str, JSONType] | list[JSONType] | str | int | float | bool | Leaf | None"
SchemaType: TypeAlias = "dict[str, JSONType]"

VARIABLE_PREFIX = "$"
INPUT_VARIABLE_NAME = "input"
WORKFLOW_EXPORT_VERSION = "0.1"


class WorkflowSyntaxError(FalServerlessException):
    """A workflow is malformed."""


class MisconfiguredGraphError(WorkflowSyntaxError):
    """A workflow refers to a value that none of its nodes produces."""


@dataclass
class Context:
    """A running workflow's state: the input and the nodes' outputs, by name."""

    vars: dict[str, JSONType]

    def hydrate(self, input: JSONType) -> JSONType:  # noqa: A002 - the published name
        """Return data with each reference replaced by its value."""
        if isinstance(input, Leaf):
            return input.execute(self)
        if isinstance(input, dict):
            return {key: self.hydrate(value) for key, value in input.items()}
        return [self.hydrate(value) for value in input] if isinstance(input, list) else input


@dataclass
class Leaf:
    """A reference to a value; its attributes and items are references too."""

    def execute(self, context: Context) -> JSONType:
        """Return the value that it refers to."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> AttributeLeaf:
        if name.startswith("__"):  # names that copy and pickle look up
            raise AttributeError(name)
        return AttributeLeaf(self, name)

    def __getitem__(self, index: int) -> IndexLeaf:
        return IndexLeaf(self, index)

    def __iter__(self) -> Iterator[IndexLeaf]:
        raise WorkflowSyntaxError(f"how many items {self!r} has is known only in a run: name each by its number")

    @property
    def referee(self) -> ReferenceLeaf:
        """The reference to the input or node at its root."""
        raise NotImplementedError


@dataclass(repr=False)
class AttributeLeaf(Leaf):
    """A field of an object."""

    leaf: Leaf
    attribute: str

    def execute(self, context: Context) -> JSONType:
        found = self.leaf.execute(context)
        if not isinstance(found, dict) or self.attribute not in found:
            raise MisconfiguredGraphError(f"{self.leaf!r} has no field {self.attribute!r}")
        return found[self.attribute]

    def __repr__(self) -> str:
        return f"{self.leaf!r}.{self.attribute}"

    @property
    def referee(self) -> ReferenceLeaf:
        return self.leaf.referee


@dataclass(repr=False)
class IndexLeaf(Leaf):
    """An item of a list."""

    leaf: Leaf
    index: int

    def execute(self, context: Context) -> JSONType:
        found = self.leaf.execute(context)
        if not isinstance(found, list) or not -len(found) <= self.index < len(found):
            raise MisconfiguredGraphError(f"{self.leaf!r} has no item {self.index}")
        return found[self.index]

    def __repr__(self) -> str:
        return f"{self.leaf!r}.{self.index}"

    @property
    def referee(self) -> ReferenceLeaf:
        return self.leaf.referee


@dataclass(repr=False)
class ReferenceLeaf(Leaf):
    """A reference to the input or to a node's output."""

    id: str

    def execute(self, context: Context) -> JSONType:
        if self.id not in context.vars:
            raise MisconfiguredGraphError(f"{self!r} is neither the input nor a node of this workflow")
        return context.vars[self.id]

    def __repr__(self) -> str:
        return VARIABLE_PREFIX + self.id

    @property
    def referee(self) -> ReferenceLeaf:
        return self


def parse_leaf(raw_leaf: str) -> Leaf:
    """Parse a reference such as "$node.images.0.url".

    Raises:
        WorkflowSyntaxError: it is not a reference.
    """
    name, *parts = raw_leaf.split(".")
    if not name.startswith(VARIABLE_PREFIX) or name == VARIABLE_PREFIX:
        raise WorkflowSyntaxError(f"{raw_leaf!r} is not a reference: write it as $NODE.field")
    leaf: Leaf = ReferenceLeaf(name.removeprefix(VARIABLE_PREFIX))
    for part in parts:
        if part.isdigit():
            leaf = IndexLeaf(leaf, int(part))
        elif part.isidentifier():
            leaf = AttributeLeaf(leaf, part)
        else:
            raise WorkflowSyntaxError(f"{raw_leaf!r} is not a reference: {part!r} is neither a field nor a number")
    return leaf


def export_workflow_json(data: JSONType) -> JSONType:
    """Return data with each reference written as text."""
    if isinstance(data, Leaf):
        return repr(data)
    if isinstance(data, dict):
        return {key: export_workflow_json(value) for key, value in data.items()}
    return [export_workflow_json(value) for value in data] if isinstance(data, list) else data


def import_workflow_json(data: JSONType) -> JSONType:
    """Return data, with texts that begin with "$" parsed as references."""
    if isinstance(data, str) and data.startswith(VARIABLE_PREFIX):
        return parse_leaf(data)
    if isinstance(data, dict):
        return {key: import_workflow_json(value) for key, value in data.items()}
    return [import_workflow_json(value) for value in data] if isinstance(data, list) else data


def iter_leaves(data: JSONType) -> Iterator[JSONType]:
    """Yield the values in data that are neither objects nor lists."""
    if isinstance(data, (dict, list)):
        for value in data.values() if isinstance(data, dict) else data:
            yield from iter_leaves(value)
    else:
        yield data


def depends(data: JSONType) -> set[str]:
    """Return the names of the nodes that the data refers to."""
    return {leaf.referee.id for leaf in iter_leaves(data) if isinstance(leaf, Leaf)}


@dataclass
class Node:
    """A step of a workflow. `depends` names the steps that must run before it."""

    id: str
    depends: set[str]

    @classmethod
    def from_json(cls, data: Mapping[str, JSONType]) -> Node:
        """Return the step that exported JSON describes.

        Raises:
            WorkflowSyntaxError: its kind is unknown.
        """
        kinds: dict[str, type[Node]] = {"run": Run, "display": Display}
        kind = kinds.get(str(data.get("type")))
        if kind is None:
            raise WorkflowSyntaxError(
                f"the step {data.get('id')} is of the kind {data.get('type')!r}: the kinds are {', '.join(kinds)}"
            )
        return kind.from_json(data)

    def to_json(self) -> dict[str, JSONType]:
        """Return the step as JSON."""
        raise NotImplementedError

    def execute(self, context: Context) -> JSONType:
        """Run the step, and return its output."""
        raise NotImplementedError


@dataclass
class Run(Node):
    """Calls an app."""

    app: str
    input: JSONType

    @classmethod
    def from_json(cls, data: Mapping[str, JSONType]) -> Run:
        name, needs = _of_node(data)
        return cls(name, needs, str(_field(data, "app")), import_workflow_json(_field(data, "input")))

    def to_json(self) -> dict[str, JSONType]:
        return {
            "type": "run",
            "id": self.id,
            "app": self.app,
            "depends": list[JSONType](sorted(self.depends)),
            "input": export_workflow_json(self.input),
        }

    def execute(self, context: Context) -> JSONType:
        from fal import apps

        given = context.hydrate(self.input)
        if not isinstance(given, dict):
            raise MisconfiguredGraphError(f"the input of {self.id} is not an object but {type(given).__name__}")
        return cast("JSONType", apps.run(self.app, given))


@dataclass
class Display(Node):
    """Shows addresses in a browser, or prints them if FAL_DONT_OPEN_LINKS is set."""

    fields: list[Leaf]

    @classmethod
    def from_json(cls, data: Mapping[str, JSONType]) -> Display:
        name, needs = _of_node(data)
        fields = import_workflow_json(_field(data, "fields"))
        if not isinstance(fields, list) or not all(isinstance(item, Leaf) for item in fields):
            raise WorkflowSyntaxError(f"the fields of {name} are not a list of references, such as $NODE.url")
        return cls(name, needs, cast("list[Leaf]", fields))

    def to_json(self) -> dict[str, JSONType]:
        return {
            "type": "display",
            "id": self.id,
            "depends": list[JSONType](sorted(self.depends)),
            "fields": export_workflow_json(list[JSONType](self.fields)),
        }

    def execute(self, context: Context) -> JSONType:
        from fal import flags

        for url in cast("list[JSONType]", context.hydrate(list[JSONType](self.fields))):
            if flags.DONT_OPEN_LINKS or not webbrowser.open(str(url)):
                print("Link:", url)  # noqa: T201 - what the step is for
        return None


def _node(name: str, data: JSONType) -> Node:
    if not isinstance(data, dict):
        raise WorkflowSyntaxError(f"the step {name} is not a JSON object")
    return Node.from_json(data)


def _field(data: Mapping[str, JSONType], name: str) -> JSONType:
    if name not in data:
        raise WorkflowSyntaxError(f"the step {data.get('id')} has no field {name!r}")
    return data[name]


def _of_node(data: Mapping[str, JSONType]) -> tuple[str, set[str]]:
    needs = data.get("depends")
    return str(_field(data, "id")), {str(name) for name in needs} if isinstance(needs, list) else set()


@dataclass
class Workflow:
    """A graph of apps.

    Attributes:
        name: its name.
        input_schema, output_schema: JSON schemas of its input and output.
        nodes: its steps by name.
        output: its output, with references.
    """

    name: str
    input_schema: SchemaType
    output_schema: SchemaType
    nodes: dict[str, Node] = field(default_factory=dict)
    output: JSONType = None
    _app_counter: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._app_counter.update(node.app for node in self.nodes.values() if isinstance(node, Run))

    @classmethod
    def from_json(cls, data: Mapping[str, JSONType]) -> Self:
        """Return the workflow that exported JSON describes.

        Raises:
            WorkflowSyntaxError: a part is missing, or a step's kind is unknown.
        """
        schema, nodes = data.get("schema"), data.get("nodes")
        if not isinstance(schema, dict) or not isinstance(nodes, dict) or "name" not in data:
            raise WorkflowSyntaxError("a workflow has a name, a schema with input and output, nodes and an output")
        return cls(
            name=str(data["name"]),
            input_schema=cast("SchemaType", schema.get("input") or {}),
            output_schema=cast("SchemaType", schema.get("output") or {}),
            nodes={name: _node(name, node) for name, node in nodes.items()},
            output=import_workflow_json(data.get("output")),
        )

    @property
    def input(self) -> ReferenceLeaf:
        """The reference to the workflow's input."""
        return ReferenceLeaf(INPUT_VARIABLE_NAME)

    def run(self, app: str, input: JSONType) -> ReferenceLeaf:  # noqa: A002 - the published name
        """Add a call to an app; return the reference to its response.

        Args:
            app: "owner/my-app", optionally followed by a path.
            input: the body, with references.
        """
        name = self._named(app)
        self.nodes[name] = Run(name, depends(input), app, input)
        return ReferenceLeaf(name)

    def display(self, *fields: Leaf) -> None:
        """Add a step that shows addresses."""
        name = self._named("display")
        self.nodes[name] = Display(name, depends(list[JSONType](fields)), list(fields))

    def set_output(self, output: JSONType) -> None:
        """Set the workflow's output, with references."""
        self.output = output

    def execute(self, input: JSONType) -> JSONType:  # noqa: A002 - the published name
        """Run the workflow from this process, and return its output.

        Raises:
            WorkflowSyntaxError: it has no output.
            MisconfiguredGraphError: it refers to a missing value, or contains a cycle.
            httpx.HTTPStatusError: an app answered with an error.
        """
        self._check_output()
        context = Context({INPUT_VARIABLE_NAME: input})
        for name in self._order():
            context.vars[name] = self.nodes[name].execute(context)
        return context.hydrate(self.output)

    def to_json(self) -> dict[str, JSONType]:
        """Return the workflow as JSON for `from_json`.

        Raises:
            WorkflowSyntaxError: it has no output.
        """
        self._check_output()
        return {
            "name": self.name,
            "schema": {"input": self.input_schema, "output": self.output_schema},
            "nodes": {node.id: node.to_json() for node in self.nodes.values()},
            "output": export_workflow_json(self.output),
            "version": WORKFLOW_EXPORT_VERSION,
        }

    to_dict = to_json

    def publish(self, title: str, *, is_public: bool = True) -> str:
        """Publish the workflow on the controller. Return its name with its owner.

        Args:
            title: its name for people.
            is_public: whether others may see and call it.

        Raises:
            CallError: the controller refused.
        """
        from fal.api import SyncServerlessClient

        body = {"name": self.name, "title": title, "contents": self.to_json(), "is_public": is_public}
        with SyncServerlessClient() as client:
            sent = json.dumps(body).encode()
            made = client.rest().send("POST", "/workflows/", sent, "application/json", timeout_seconds=60.0)
        if not isinstance(made, dict) or "name" not in made:
            raise FalServerlessException("the controller did not say under which name the workflow is published")
        return f"{made.get('user_nickname')}/{made['name']}"

    def _check_output(self) -> None:
        if not self.output:
            raise WorkflowSyntaxError(f"the workflow {self.name} has no output: call set_output first")

    def _order(self) -> list[str]:
        graph = {node.id: node.depends - {INPUT_VARIABLE_NAME} for node in self.nodes.values()}
        missing = {name for needs in graph.values() for name in needs} - graph.keys()
        if missing:
            raise MisconfiguredGraphError(f"the workflow {self.name} has no node {', '.join(sorted(missing))}")
        try:
            return list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            raise MisconfiguredGraphError(f"the workflow {self.name} contains a cycle: {error.args[1]}") from None

    def _named(self, app: str) -> str:
        self._app_counter[app] += 1
        return f"{app.replace('/', '_').replace('-', '_')}_{self._app_counter[app]}"


def create_workflow(name: str, input: type[BaseModel], output: type[BaseModel]) -> Workflow:  # noqa: A002 - published
    """Return a workflow without steps.

    Args:
        name: its name.
        input, output: models of its input and output.
    """
    return Workflow(name, input.model_json_schema(), output.model_json_schema())


def _read(path: Path) -> Workflow:
    """Read a workflow from a file.

    Raises:
        WorkflowSyntaxError: the file does not exist or contains no workflow.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkflowSyntaxError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise WorkflowSyntaxError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise WorkflowSyntaxError(f"{path} contains no workflow, which is a JSON object")
    return Workflow.from_json(found)


def main() -> None:
    """Run an exported workflow: `python -m fal.workflows FILE.json KEY=VALUE...`; a value is JSON or a text."""
    parser = argparse.ArgumentParser(prog="python -m fal.workflows", description=main.__doc__)
    parser.add_argument("workflow_file", help="A file with an exported workflow.")
    parser.add_argument(
        "input", nargs="*", metavar="KEY=VALUE", help="A field of the input; a value is JSON or a text."
    )
    args = parser.parse_args()
    given: dict[str, JSONType] = {}
    for item in args.input:
        key, equals, value = item.partition("=")
        if not equals:
            parser.error(f"{item!r} is not of the form KEY=VALUE")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    try:
        found = _read(Path(args.workflow_file)).execute(given)
    except FalServerlessException as error:
        sys.exit(f"{parser.prog}: {error}")
    except Exception as error:
        import httpx

        if not isinstance(error, httpx.HTTPError):
            raise
        sys.exit(f"{parser.prog}: {type(error).__name__}: {error}")
    print(json.dumps(found, indent=2))  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
