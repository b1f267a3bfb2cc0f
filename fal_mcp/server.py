"""The tools as a server of the Model Context Protocol. Only this module needs the SDK, the extra `mcp`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from jsonschema import Draft202012Validator
from mcp import types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

from fal_mcp.calls import Refused
from fal_mcp.tools import Tool, Toolset

Context: TypeAlias = "ServerRequestContext[dict[str, object], object]"
NAME = "fal-platform"
MOST_BODY_BYTES = 1024 * 1024
INSTRUCTIONS = (
    "These tools show the apps of a fal controller: requests, logs, errors, revisions, runners, files. To find out why "
    "requests fail: list_apps, fetch_requests, fetch_request_logs of one request, get_analytics for how many, "
    "fetch_events for what changed, get_current_state for now. Requests are counted when they end: one that still runs "
    "is in none of the numbers. Tools that act show a plan first: show it to the user before you carry it out."
)


def serve(toolset: Toolset, version: str) -> Server[dict[str, object]]:
    """Return a server of these tools.

    Args:
        version: this distribution's version.
    """

    async def list_tools(context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_shown(tool) for tool in toolset.tools.values()])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        given: Mapping[str, object] = params.arguments or {}
        try:
            _check(toolset.tool(params.name), params)
            text, failed = await toolset.call(params.name, given), False
        except Refused as refused:
            text, failed = f"Error {refused.status}: {refused.message}", True
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    return Server(
        NAME,
        version=version,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda name: toolset.tools[name].schema if name in toolset.tools else None,
    )


async def serve_stdio(toolset: Toolset, version: str) -> None:
    """Serve over standard input and output until the input ends."""
    server = serve(toolset, version)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


async def serve_request(toolset: Toolset, version: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request of streamable HTTP; nothing is kept between requests."""
    manager = StreamableHTTPSessionManager(
        serve(toolset, version), json_response=True, stateless=True, max_request_body_size=MOST_BODY_BYTES
    )
    async with manager.run():
        await manager.handle_request(scope, receive, send)


def _shown(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=dict(tool.schema),
        annotations=types.ToolAnnotations(read_only_hint=not tool.acts, destructive_hint=tool.acts),
    )


def _check(tool: Tool, params: types.CallToolRequestParams) -> None:
    """Refuse arguments that a tool does not accept."""
    for error in Draft202012Validator(tool.schema).iter_errors(params.arguments or {}):
        place = ".".join(str(part) for part in error.absolute_path)
        raise Refused(400, f"{place}: {error.message}" if place else error.message)
