"""Wrong arguments are refused by name, before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from datetime import UTC, datetime

import pytest

from fal.api import ArgumentError, AsyncServerlessClient, SyncServerlessClient
from fal.deploy import DeployOptions

SPACES = (
    "apps",
    "runners",
    "keys",
    "secrets",
    "environments",
    "queue",
    "accounts",
    "audit",
    "requests",
    "drains",
    "notices",
)
# The other arguments of a call with a wrong one.
RIGHT: dict[str, object] = {
    "app_name": "x",
    "app_rev": "x",
    "arrivals": [(0.0, 1.0)],
    "command": ["x"],
    "exec_id": "x",
    "key_id": "x",
    "name": "x",
    "new_nickname": "x",
    "request_id": "x",
    "request_ids": ["x"],
    "nickname": "x",
    "runner_id": "x",
    "team": "x",
    "url": "https://x.test",
    "user": "x",
    "value": "x",
}
# Values of every type, each with the parts of an annotation that allow it.
VALUES: list[tuple[object, tuple[str, ...]]] = [
    (object(), ()),
    (True, ("bool",)),
    (5, ("int", "float")),
    (2.5, ("float",)),
    ("x", ("str", "AuthMode", "KeyScope")),
    (b"x", ("bytes",)),
    (["x"], ("list", "Sequence", "Iterable")),
    ([object()], ()),
    ({1: object()}, ()),
    (datetime(2026, 1, 1, tzinfo=UTC), ("datetime",)),
]


def alternatives(annotation: str) -> set[str]:
    """Return the types that an annotation allows, without their type arguments."""
    found, depth = "", 0
    for character in annotation.replace("builtins.", ""):
        depth += (character == "[") - (character == "]")
        found += character if not depth and character != "]" else ""
    return {word.strip() for word in found.split("|")}


def wrong_calls() -> Iterator[tuple[str, str, str, object]]:
    with SyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client:
        for space in SPACES:
            for method, call in inspect.getmembers(getattr(client, space), inspect.ismethod):
                for parameter in inspect.signature(call).parameters.values() if method[0] != "_" else ():
                    allowed = alternatives(str(parameter.annotation))
                    for value, fitting in VALUES:
                        if not allowed.intersection(fitting):
                            yield space, method, parameter.name, value


def arguments(call: Callable[..., object], space: str, name: str, value: object) -> dict[str, object]:
    needed = [
        parameter
        for parameter in inspect.signature(call).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    given = {parameter.name: RIGHT[parameter.name] for parameter in needed}
    if "scope" in inspect.signature(call).parameters and name not in ("scope", "preset", "permissions"):
        given["scope"] = "api"
    return {**given, name: value}


def begin(call: Callable[..., object], given: dict[str, object]) -> None:
    made = call(**given)
    if isinstance(made, Generator):
        next(made)


async def begin_async(call: Callable[..., object], given: dict[str, object]) -> None:
    made = call(**given)
    if isinstance(made, AsyncGenerator):
        await anext(made)
    elif isinstance(made, Awaitable):
        await made


def check(error: ArgumentError, name: str) -> None:
    # The message may name a part of it, such as settings.keep_alive.
    assert error.argument.partition(".")[0] == name
    assert str(error).startswith(f"{error.argument}: ")


def test_every_argument_of_every_method_is_checked() -> None:
    """Nothing listens there, so a sent request would be another error."""
    tried = 0
    with SyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client:
        for space, method, name, value in wrong_calls():
            call = getattr(getattr(client, space), method)
            with pytest.raises(ArgumentError) as caught:
                begin(call, arguments(call, space, name, value))
            check(caught.value, name)
            tried += 1
    assert tried > 900, "few methods were found"


async def test_every_argument_of_every_method_for_asyncio_is_checked() -> None:
    async with AsyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client:
        for space, method, name, value in wrong_calls():
            call = getattr(getattr(client, space), method)
            with pytest.raises(ArgumentError) as caught:
                await begin_async(call, arguments(call, space, name, value))
            check(caught.value, name)


@pytest.mark.parametrize(
    ("argument", "stdin"), [("stdin", 5), ("stdin", [5]), ("stdin", ["x"]), ("stdin", {b"x": 1}), ("stdin", object())]
)
def test_an_input_that_gives_no_bytes(argument: str, stdin: object) -> None:
    with SyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client, pytest.raises(ArgumentError) as caught:
        client.runners.exec("r", ["cat"], stdin=stdin)  # pyright: ignore[reportArgumentType]
    assert caught.value.argument == argument


@pytest.mark.parametrize("name", ["host", "api_key", "profile", "team"])
@pytest.mark.parametrize("value", [5, b"x", [], object()])
def test_the_arguments_of_the_client_itself(name: str, value: object) -> None:
    for kind in (SyncServerlessClient, AsyncServerlessClient):
        with pytest.raises(ArgumentError) as caught:
            kind(**{name: value})  # pyright: ignore[reportArgumentType]
        assert caught.value.argument == name


@pytest.mark.parametrize("value", [5, b"x", ["x"], object()])
@pytest.mark.parametrize("name", ["app_ref", *DeployOptions.__annotations__])
def test_the_options_of_a_deploy(name: str, value: object) -> None:
    """They are checked before anything is read or run."""
    with (
        SyncServerlessClient(host="127.0.0.1:1", api_key="a:b") as client,
        pytest.raises(ArgumentError) as caught,
    ):
        client.deploy(**{name: value})  # pyright: ignore[reportArgumentType]
    assert caught.value.argument == name
