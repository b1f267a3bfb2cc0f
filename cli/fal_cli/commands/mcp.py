"""`fal mcp`: serves tools for agents over standard input and output."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from fal.extras import MCP, missing
from fal_cli.exit_codes import CommandError
from fal_cli.options import add_client_options
from fal_cli.parser import FalParser

if TYPE_CHECKING:
    from fal.http_aio import AsyncHttpClient
    from fal.settings import Settings
    from fal_mcp.calls import Call

_SECONDS = 60.0
_EPILOG = """\
A program that speaks the Model Context Protocol starts this command, for example by this in its settings:
  {"mcpServers": {"fal": {"command": "fal", "args": ["mcp"]}}}

Examples:
  fal mcp                  tools that show apps, requests, logs and runners
  fal mcp --allow-writes   also tools that act, each after a plan"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal mcp`."""
    parser.description = (
        "Serve tools for agents by the Model Context Protocol over standard input and output. They call the "
        "controller with your key and its permissions. A controller serves the same tools at /v1/mcp/platform."
    )
    parser.epilog = _EPILOG
    add_client_options(parser)
    parser.add_argument(
        "--allow-writes",
        action="store_true",
        help="Also serve tools that act: each shows a plan first, and acts when it is called with the plan's token.",
    )
    parser.set_defaults(handler=_mcp)


def _mcp(args: argparse.Namespace) -> None:
    if missing(MCP):
        raise CommandError("fal mcp needs the extra mcp: pip install 'fal-grpc[mcp]'")
    from fal.settings import resolve

    settings = resolve(host=args.host, team=args.team)
    if settings.target.is_cloud:
        raise CommandError(
            f"{settings.target.host} is the fal cloud, which serves such tools itself: `fal mcp` is for a controller; "
            "FAL_GRPC_HOST or --host names one"
        )
    asyncio.run(_serve(settings, writes=args.allow_writes))


async def _serve(settings: Settings, *, writes: bool) -> None:
    from fal.http_aio import AsyncHttpClient
    from fal_mcp.plans import Plans
    from fal_mcp.server import serve_stdio
    from fal_mcp.toolsets import toolset

    client = AsyncHttpClient(settings.options, keep_connections=True)
    try:
        tools = toolset(
            _Remote(client, settings),
            Plans(_now),
            _now,
            writes=writes,
            how_to_allow="`fal mcp --allow-writes` lets tools act",
        )
        await serve_stdio(tools, version("fal-grpc"))
    finally:
        await client.close()


class _Remote:
    """The Platform port: a remote controller over HTTP."""

    def __init__(self, client: AsyncHttpClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    @property
    def holder(self) -> str:
        return ""  # this process has only one caller

    @property
    def secrets(self) -> Sequence[str]:
        parts = self._headers().get("authorization", "").replace(":", " ").split()
        return parts[2:] if len(parts) > 2 else parts[1:]  # everything but the name of the key

    def _headers(self) -> Mapping[str, str]:
        found = {name.lower(): value for name, value in self._settings.credentials.headers().items()}
        team = found.get("x-fal-user-id")
        # REST routes and rpcs have different names for the same header.
        return found if team is None else {**found, "fal-user-id": team}

    async def ask(self, call: Call) -> bytes:
        from fal.api import CallError
        from fal.http_messages import HttpRequest
        from fal_mcp.calls import Refused

        request = HttpRequest(
            method=call.method,
            url=self._settings.target.url + call.target,
            content=call.body or None,
            headers={**self._headers(), **call.headers},
            timeout_seconds=_SECONDS,
        )
        try:
            return (await self._client.send(request)).content
        except CallError as error:
            raise Refused(error.http_status or 503, str(error)) from None


def _now() -> datetime:
    return datetime.now(UTC)
