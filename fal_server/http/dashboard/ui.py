"""What page handlers share. These are the use cases, and the routes that lead to the handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fal_server.access.tokens import Tokens
from fal_server.core.faults import AlreadyExists, FailedPrecondition, InvalidArgument, ResourceExhausted
from fal_server.core.identity import AppId, Principal
from fal_server.http.dashboard.pages import Pages
from fal_server.http.routes.guard import Guard
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.accounts import Accounts
from fal_server.services.apps import Apps
from fal_server.services.audit import Audit
from fal_server.services.drains import Drains
from fal_server.services.environments import Environments
from fal_server.services.explain import Explainer
from fal_server.services.keys import Keys
from fal_server.services.logs import Logs
from fal_server.services.nodes import Nodes
from fal_server.services.notices import Notices
from fal_server.services.queue import Queue
from fal_server.services.request_payloads import RequestPayloads
from fal_server.services.requests import Requests
from fal_server.services.revisions import Revisions
from fal_server.services.runners import Runners
from fal_server.services.secrets import Secrets
from fal_server.services.views import Urls

# What the person at a form can correct there.
_CORRECTABLE = (InvalidArgument, AlreadyExists, ResourceExhausted, FailedPrecondition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ui:
    """The pages, and the use cases behind them.

    Attributes:
        urls: returns the addresses of an app.
        health: returns the controller's metrics by name; only its owner sees them.
    """

    pages: Pages
    accounts: Accounts
    apps: Apps
    audit: Audit
    drains: Drains
    environments: Environments
    explainer: Explainer
    health: Callable[[], Mapping[str, str]]
    keys: Keys
    logs: Logs
    nodes: Nodes
    notices: Notices
    payloads: RequestPayloads
    queue: Queue
    quotas: AccountQuotas
    requests: Requests
    revisions: Revisions
    runners: Runners
    secrets: Secrets
    tokens: Tokens
    urls: Callable[[AppId], Urls]


Page: TypeAlias = "Callable[[Ui, Request, Principal], Awaitable[Response]]"
AnyPage = TypeVar("AnyPage", bound=Page)
Action: TypeAlias = "Callable[[Ui, Request, Principal], Awaitable[str | Response]]"


class Routes:
    """The routes of one file of pages, in its order."""

    def __init__(self) -> None:
        self._pages: list[tuple[str, str, Page]] = []

    def page(self, *paths: str) -> Callable[[AnyPage], AnyPage]:
        """Let a handler answer GET at these paths."""

        def keep(page: AnyPage) -> AnyPage:
            self._pages += [("GET", path, page) for path in paths]
            return page

        return keep

    def action(self, path: str, then: str = "", again: Page | None = None) -> Callable[[Action], Action]:
        """Let a handler answer POST at a path. It returns a response, or what to say on the next page.

        Args:
            then: the next page, with the path's parameters in braces.
            again: the page of the form, which shows beside the fields what has to be corrected.
        """

        def keep(action: Action) -> Action:
            async def answer(ui: Ui, request: Request, caller: Principal) -> Response:
                try:
                    done = await action(ui, request, caller)
                except _CORRECTABLE as fault:
                    if again is None:
                        raise
                    request.state.fault = fault
                    return await again(ui, request, caller)
                if isinstance(done, Response):
                    return done
                return back(then.format_map({name: quote(value) for name, value in request.path_params.items()}), done)

            self._pages.append(("POST", path, answer))
            return action

        return keep

    def bind(self, ui: Ui, guard: Guard) -> list[Route]:
        """Return the routes for a dashboard."""
        return [guard.route(method, path, partial(page, ui)) for method, path, page in self._pages]


def back(place: str, notice: str = "") -> Response:
    """Redirect from a processed form to the page that shows its result."""
    mark = "&" if "?" in place else "?"
    return RedirectResponse(place + (f"{mark}notice={quote(notice)}" if notice else ""), 303)
