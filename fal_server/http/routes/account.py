"""The account over REST: identity, teams, apps' metadata, and runners' GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import Account, AccountKind, KnownAccounts
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.accounts import Accounts
from fal_server.services.gpus import Gpus
from fal_server.services.revisions import Revisions


class AccountRoutes:
    """The routes of a caller's account."""

    def __init__(
        self,
        gpus: Gpus,
        revisions: Revisions,
        accounts: Accounts,
        quotas: AccountQuotas,
        known: KnownAccounts,
        guard: Guard,
    ) -> None:
        self._quotas = quotas
        self._gpus = gpus
        self._revisions = revisions
        self._accounts = accounts
        self._known = known
        self.routes = [
            guard.route("GET", "/users/current", self._current_user),
            guard.route("GET", "/users/teams", self._teams),
            guard.route("GET", "/applications/metrics", self._metrics),
            guard.route("GET", "/applications/{owner}/{app}/metadata", self._metadata),
        ]

    async def _current_user(self, request: Request, caller: Principal) -> Response:
        view = await self._quotas.of_caller(caller)
        quotas = {
            name: {"limit": bound or None, "used": view.used.get(name)} for name, bound in asdict(view.quotas).items()
        }
        return JSONResponse({**_names(view.account), "is_paying": True, "members": [], "quotas": quotas})

    async def _teams(self, request: Request, caller: Principal) -> Response:
        """Answer with the account too, as a team of one. Clients look up their own user here."""
        views = await self._accounts.list(caller)
        return JSONResponse([{**_names(view.account), "is_org": False} for view in views])

    async def _metrics(self, request: Request, caller: Principal) -> Response:
        apps, owner = self._gpus.gpus_by_app(caller.scope), self._accounts.account_of(caller).nickname
        return JSONResponse(
            {
                "summary": {"total_gpu_by_type": _sum(apps.values())},
                "apps": {f"{owner}/{app}": {"gpu_count_by_type": dict(counts)} for app, counts in sorted(apps.items())},
            }
        )

    async def _metadata(self, request: Request, caller: Principal) -> Response:
        """Answer with the app's metadata. `openapi` is there if our or the published package serves it."""
        self._known.own(caller.scope.account, request.path_params["owner"])
        return JSONResponse(dict(await self._revisions.metadata(caller.scope, request.path_params["app"])))


def _names(account: Account) -> dict[str, object]:
    return {
        "full_name": account.full_name,
        "nickname": account.nickname,
        "user_id": account.user_id,
        "is_personal": account.kind is AccountKind.USER,
        "is_locked": False,
        "lock_reason": None,
    }


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total
