"""The pages of what an account has set up: its environments, drains and notices, and the accounts themselves."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import SEE_ALL_ACCOUNTS, allows
from fal_server.core.accounts import AccountKind
from fal_server.core.identity import Principal
from fal_server.http.dashboard.app import back
from fal_server.http.dashboard.forms import form_of
from fal_server.http.dashboard.pages import Pages
from fal_server.http.routes.guard import Guard
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.accounts import Accounts
from fal_server.services.drains import Drains
from fal_server.services.environments import Environments
from fal_server.services.notices import Notices


class SetupPages:
    """Environments, drains, notices and accounts."""

    def __init__(
        self,
        pages: Pages,
        guard: Guard,
        *,
        environments: Environments,
        drains: Drains,
        notices: Notices,
        accounts: Accounts,
        quotas: AccountQuotas,
    ) -> None:
        self._pages = pages
        self._environments = environments
        self._drains = drains
        self._notices = notices
        self._accounts = accounts
        self._quotas = quotas
        self.routes = [
            guard.route("GET", "/ui/environments", self._list_environments),
            guard.route("POST", "/ui/environments", self._create_environment),
            guard.route("POST", "/ui/environments/{name}/delete", self._delete_environment),
            guard.route("GET", "/ui/drains", self._list_drains),
            guard.route("POST", "/ui/drains/{name}/pause", self._pause_drain),
            guard.route("POST", "/ui/drains/{name}/resume", self._resume_drain),
            guard.route("GET", "/ui/notices", self._list_notices),
            guard.route("POST", "/ui/notices/{name}/test", self._test_notice),
            guard.route("GET", "/ui/accounts", self._list_accounts),
        ]

    async def _list_environments(self, request: Request, caller: Principal) -> Response:
        return self._pages.show(request, "environments.html", environments=await self._environments.list(caller.scope))

    async def _create_environment(self, request: Request, caller: Principal) -> Response:
        form = await form_of(request)
        made = await self._environments.create(
            caller.scope, form.get("name", "").strip(), form.get("description", "").strip() or None
        )
        return back("/ui/environments", f"Environment {made.name} exists, without apps and secrets.")

    async def _delete_environment(self, request: Request, caller: Principal) -> Response:
        await self._environments.delete(caller.scope, request.path_params["name"])
        return back("/ui/environments", "The environment is deleted, with its secrets.")

    async def _list_drains(self, request: Request, caller: Principal) -> Response:
        return self._pages.show(request, "drains.html", drains=await self._drains.list(caller.scope))

    async def _pause_drain(self, request: Request, caller: Principal) -> Response:
        await self._drains.pause(caller.scope, request.path_params["name"], paused=True)
        return back("/ui/drains", "The drain is paused. Lines wait for it until they are too old to be kept.")

    async def _resume_drain(self, request: Request, caller: Principal) -> Response:
        await self._drains.pause(caller.scope, request.path_params["name"], paused=False)
        return back("/ui/drains", "The drain goes on with the lines that waited.")

    async def _list_notices(self, request: Request, caller: Principal) -> Response:
        return self._pages.show(request, "notices.html", notices=await self._notices.list(caller.scope))

    async def _test_notice(self, request: Request, caller: Principal) -> Response:
        await self._notices.test(caller.scope, request.path_params["name"])
        return back("/ui/notices", "The receiver took the test.")

    async def _list_accounts(self, request: Request, caller: Principal) -> Response:
        mine, quotas = self._accounts.account_of(caller), await self._quotas.of_caller(caller)
        return self._pages.show(
            request,
            "accounts.html",
            mine=mine,
            views=await self._accounts.list(caller, everything=allows(caller, SEE_ALL_ACCOUNTS)),
            members=await self._accounts.members(caller, mine.nickname) if mine.kind is AccountKind.TEAM else [],
            limits=asdict(quotas.quotas),
            used=quotas.used,
        )
