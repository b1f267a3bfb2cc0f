"""The metrics page, for Prometheus."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.exposition import CONTENT_TYPE, to_text
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.services.metrics import Metrics


class MetricsRoutes:
    """The page under our path and under the published one."""

    def __init__(self, metrics: Metrics, guard: Guard) -> None:
        self._metrics = metrics
        self.routes = [guard.route("GET", path, self._page) for path in ("/metrics", "/v1/serverless/metrics")]

    async def _page(self, request: Request, caller: Principal) -> Response:
        return Response(to_text(await self._metrics.collect(caller.scope)), headers={"content-type": CONTENT_TYPE})
