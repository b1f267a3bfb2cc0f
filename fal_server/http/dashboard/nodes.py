"""The page of nodes: resources, reservations, GPU holders, and the controller's own health."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.identity import LOCAL, Principal
from fal_server.http.dashboard.pages import Pages
from fal_server.http.routes.guard import Guard
from fal_server.services.nodes import Nodes


class NodePages:
    """Nodes, and the controller.

    Args:
        health: returns the controller's metrics by name; only its owner sees them.
    """

    def __init__(self, pages: Pages, guard: Guard, nodes: Nodes, health: Callable[[], Mapping[str, str]]) -> None:
        self._pages = pages
        self._nodes = nodes
        self._health = health
        self.routes = [guard.route("GET", "/ui/nodes", self._show)]

    async def _show(self, request: Request, caller: Principal) -> Response:
        health = self._health() if caller.scope.account == LOCAL else {}
        return self._pages.show(request, "nodes.html", nodes=await self._nodes.list(caller.scope), health=health)
