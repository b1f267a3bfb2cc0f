"""The ASGI application of the dashboard: routes, login, and error pages."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fal_server.core.faults import Fault, NotFound, Unauthenticated
from fal_server.http.dashboard import (
    account,
    apps,
    log_lines,
    overview,
    playground,
    requests,
    runners,
    shell,
    simulation,
)
from fal_server.http.dashboard.forms import form_of
from fal_server.http.dashboard.pages import Pages
from fal_server.http.dashboard.sessions import COOKIE, LIFE, PageGuard, require_same_origin
from fal_server.http.dashboard.ui import Ui
from fal_server.http.server.faults import http_error

HOME, LOGIN = "/ui/", "/ui/login"
_PARTS = (overview, apps, log_lines, simulation, playground, requests, runners, shell, account)


def dashboard_app(ui: Ui, guard: PageGuard) -> Starlette:
    """Return the application."""
    pages = ui.pages

    async def home(request: Request) -> Response:
        return RedirectResponse(HOME, 308)

    async def static(request: Request) -> Response:
        found = pages.static.answer(request)
        if found is None:
            raise NotFound("file", "the page that names it is of another version: load it again")
        return found

    problems = _Problems(pages)
    app = Starlette(
        routes=[
            guard.open_route("GET", "/ui", home),
            guard.open_route("GET", "/ui/static/{name}", static),
            *_LoginPages(pages, guard).routes,
            *(route for part in _PARTS for route in part.routes.bind(ui, guard)),
        ],
        exception_handlers={Fault: problems.of_fault, HTTPException: problems.of_no_page},
    )
    app.router.redirect_slashes = False
    return app


class _LoginPages:
    """The login form, and the logout."""

    def __init__(self, pages: Pages, guard: PageGuard) -> None:
        self._pages = pages
        self._sessions = guard.sessions
        self.routes = [
            guard.open_route("GET", LOGIN, self._form),
            guard.open_route("POST", LOGIN, self._log_in),
            guard.open_route("POST", "/ui/logout", self._log_out),
        ]

    async def _form(self, request: Request) -> Response:
        return self._show(request, 200, _inside(request.query_params.get("next", "")))

    async def _log_in(self, request: Request) -> Response:
        require_same_origin(request)
        form = await form_of(request)
        following = _inside(form.get("next", ""))
        if not form.get("key", "").strip():
            return self._show(request, 400, following, "enter a key, as ID:SECRET")
        try:
            cookie, caller = await self._sessions.begin(form["key"])
        except Unauthenticated as fault:
            return self._show(request, 401, following, fault.message)
        self._sessions.end(request)
        reached = caller.scope.restrictions.apps
        if following == HOME and reached:  # a key for one app opens no page of the whole account
            following = f"/ui/apps/{quote(str(min(reached, key=str)))}"
        answer = RedirectResponse(following, 303)
        life, secure = int(LIFE.total_seconds()), request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie, life, path="/ui", secure=secure, httponly=True, samesite="strict")
        return answer

    async def _log_out(self, request: Request) -> Response:
        require_same_origin(request)
        self._sessions.end(request)
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(COOKIE, path="/ui", httponly=True, samesite="strict")
        return answer

    def _show(self, request: Request, status: int, following: str, problem: str = "") -> Response:
        return self._pages.show(request, "login.html", status=status, next=following, problem=problem)


class _Problems:
    """Turns failed requests into error pages."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def of_fault(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Fault)
        if isinstance(error, Unauthenticated) and "hx-request" in request.headers:
            # A live part of a page cannot be a login form: redirect the whole page.
            return Response(status_code=204, headers={"hx-redirect": LOGIN})
        if isinstance(error, Unauthenticated) and "text/html" in request.headers.get("accept", ""):
            here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"{LOGIN}?next={quote(here if request.method == 'GET' else HOME)}", 303)
        found = http_error(error)
        return self._show(request, found.status, found.detail)

    async def of_no_page(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.NOT_FOUND and request.method == "GET" and request.url.path.endswith("/"):
            return RedirectResponse(request.url.path.rstrip("/"), 307)
        detail = f"{request.method} {request.url.path} is not a page of the dashboard"
        return self._show(request, error.status_code, detail)

    def _show(self, request: Request, status: int, detail: str) -> Response:
        title = HTTPStatus(status).phrase
        return self._pages.show(request, "problem.html", status=status, title=title, detail=detail)


def _inside(place: str) -> str:
    """Return the destination after the login, which is always inside the dashboard."""
    try:
        parts = urlsplit(place)
    except ValueError:
        return HOME
    inside = not parts.scheme and not parts.netloc and parts.path.startswith("/ui/") and place.isprintable()
    return place if inside and "\\" not in place and not parts.path.startswith((LOGIN, "/ui/logout")) else HOME
