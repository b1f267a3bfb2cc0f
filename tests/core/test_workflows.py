"""The graph of a workflow, and the targets of its references."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.workflows import NoSuchValue, graph_of, hydrate

VALUES: dict[str, Any] = {"input": {"text": "hi"}, "one": {"images": [{"url": "u"}], "n": 3, "none": None}}


def run(app: str = "local/a", depends: list[str] | None = None, **value: Any) -> dict[str, Any]:
    return {"type": "run", "id": "x", "app": app, "input": value, "depends": depends or []}


def contents(output: Any = None, **nodes: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": nodes, "output": output or {"text": "$input.text"}}


def test_an_order_in_which_each_node_comes_after_those_that_it_needs() -> None:
    graph = graph_of(contents(c=run(text="$b.text"), a=run(), b=run(depends=["a"])))
    assert list(graph.sorter().static_order()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("$input.text", "hi"),
        ("$input", {"text": "hi"}),
        ("$one.images.0.url", "u"),
        ({"a": ["$one.n", "plain", 1, None]}, {"a": [3, "plain", 1, None]}),
        ("$one.none", None),
    ],
)
def test_references(value: Any, found: Any) -> None:
    assert hydrate(value, VALUES) == found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("$two.text", "there is no 'two'"),
        ("$one.images.1", "one.images has no '1'"),
        ("$one.images.url", "one.images has no 'url'"),
        ("$one.n.x", "one.n has no 'x'"),
        ("$input.text.0", "input.text has no '0'"),
    ],
)
def test_references_that_lead_to_nothing(value: str, words: str) -> None:
    with pytest.raises(NoSuchValue, match=words):
        hydrate([value], VALUES)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "nodes are missing"),
        ({"nodes": {}}, "output is missing"),
        (contents("$gone.x"), "output needs 'gone'"),
        (contents(a=run(text="$b.text")), "node 'a' needs 'b'"),
        (contents(a=run(depends=["b"]), b=run(depends=["a"])), "wait for one another: a, b, a|b, a, b"),
        (contents(a=run(depends=["a"])), "wait for one another"),
        (contents(a=run(app="alone")), "node 'a' has app 'alone'"),
        (contents(a={"type": "dance"}), "node 'a' has type 'dance'"),
        (contents(a=5), "node 'a' is not an object"),
        (contents(input=run()), "node 'input' has no usable id"),
        (contents(a=run(text="$")), "'\\$' is not a reference"),
        (contents(a={"type": "run", "app": "local/a", "input": "$input"}), "its input is not an object"),
        (contents(a={**run(), "depends": "b"}), "depends is not a list"),
    ],
)
def test_contents_that_are_no_workflow(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        graph_of(wrong)


names = st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers() | names.filter(lambda text: not text.startswith("$"))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)


@given(values)
def test_a_value_without_references_stays_as_it_is(value: Any) -> None:
    assert hydrate(value, {}) == value
