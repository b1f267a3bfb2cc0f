"""A controller with an app, and the MCP SDK's client. The client uses both transports."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from tests.support.controller import BIN, Controller, running

APP = """
import fal
from fastapi import HTTPException

class Shop(fal.App, name="shop", keep_alive=300, min_concurrency=1):
    app_auth = "private"

    @fal.endpoint("/")
    def sell(self, what: str = "") -> dict:
        print("sold", what or "one")
        return {{"sold": {number}}}

    @fal.endpoint("/back")
    def give_back(self) -> dict:
        raise HTTPException(503, "no receipt")
"""


@dataclass(frozen=True, kw_only=True)
class ToolAnswer:
    """The answer of a tool."""

    text: str
    failed: bool

    @property
    def result(self) -> Any:
        """The result, unless it is an error."""
        assert not self.failed, self.text
        return json.loads(self.text)["result"]


class Tools:
    """A server's tools, called by the SDK's client."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def names(self) -> set[str]:
        """Return the names of all tools."""
        return {tool.name for tool in (await self.client.list_tools()).tools}

    async def call(self, tool: str, **arguments: object) -> ToolAnswer:
        """Call a tool."""
        answer = await self.client.call_tool(tool, arguments)
        (content,) = answer.content
        assert isinstance(content, TextContent)
        return ToolAnswer(text=content.text, failed=bool(answer.is_error))


Open: TypeAlias = "Callable[..., AbstractAsyncContextManager[Tools]]"


@asynccontextmanager
async def over_stdio(controller: Controller, *, key: str = "", writes: bool = True) -> AsyncGenerator[Tools]:
    """Start `fal mcp`, and connect to it."""
    options = ["--allow-writes"] if writes else []
    environment = {**controller.environment, **({"FAL_KEY": key} if key else {})}
    program = StdioServerParameters(command=str(BIN / "fal"), args=["mcp", *options], env=environment)
    async with Client(stdio_client(program)) as client:
        yield Tools(client)


@asynccontextmanager
async def over_http(controller: Controller, *, key: str = "") -> AsyncGenerator[Tools]:
    """Connect to the controller."""
    headers = {"Authorization": f"Key {key or controller.key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=None) as http,
        Client(streamable_http_client(f"http://{controller.host}/v1/mcp/platform", http_client=http)) as client,
    ):
        yield Tools(client)


@pytest.fixture(params=[over_stdio, over_http], ids=["stdio", "http"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Return a function that connects to a controller's tools."""
    return request.param


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """Run a controller with an app of two revisions. Its operator lets tools act."""
    folder = tmp_path_factory.mktemp("shop")
    with running(folder / "state", "--mcp-writes") as controller:
        for number in (1, 2):
            (folder / "app.py").write_text(APP.format(number=number))
            controller.fal("deploy", str(folder / "app.py"))
        yield controller


@pytest.fixture(scope="session")
def reader(controller: Controller) -> str:
    """Return a key that may read everything but change nothing."""
    return key_of(controller, "READONLY")


def key_of(controller: Controller, preset: str) -> str:
    """Return a new key."""
    made = json.loads(controller.fal("keys", "create", "--preset", preset, "--json").stdout)
    return f"{made['key_id']}:{made['key_secret']}"
