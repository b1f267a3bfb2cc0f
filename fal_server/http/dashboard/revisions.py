"""The page of a revision: what it changes, and the way back to it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.identity import Principal
from fal_server.http.dashboard.pages import Pages, app_of
from fal_server.http.routes.guard import Guard
from fal_server.services.revisions import Revisions

_MOST_LINES = 2000


class RevisionPage:
    """A revision of an app, compared with the current one."""

    def __init__(self, pages: Pages, guard: Guard, revisions: Revisions) -> None:
        self._pages = pages
        self._revisions = revisions
        self.routes = [guard.route("GET", "/ui/apps/{app}/revisions/{revision_id}", self._show)]

    async def _show(self, request: Request, caller: Principal) -> Response:
        app = str(app_of(request, caller))
        found = await self._revisions.compare(caller.scope, app, request.path_params["revision_id"])
        message = found.revision.metadata.get("message")
        return self._pages.show(
            request,
            "revision.html",
            app=app,
            found=found,
            message=message if isinstance(message, str) else "",
            lines=found.source[2 : 2 + _MOST_LINES],  # the first two name the revisions
            cut=len(found.source) > 2 + _MOST_LINES,
        )
