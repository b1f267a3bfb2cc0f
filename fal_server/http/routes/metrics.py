"""What REST tells of the account besides runners and logs: how many GPUs its runners have, and its teams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.core.accounts import Account
from fal_server.http.routes.guard import Guard
from fal_server.services.gpus import Gpus


class AccountRoutes:
    """The endpoints."""

    def __init__(self, gpus: Gpus, account: Account, guard: Guard) -> None:
        self._gpus = gpus
        self._account = account
        self.routes = [
            Route("/applications/metrics", guard.needs("serverless:metrics:read", self._metrics), methods=["GET"]),
            Route("/users/teams", guard.needs("account:read", self._teams), methods=["GET"]),
        ]

    async def _metrics(self, request: Request) -> Response:
        apps = self._gpus.gpus_by_app()
        return JSONResponse(
            {
                "summary": {"total_gpu_by_type": _sum(apps.values())},
                "apps": {
                    f"{self._account.nickname}/{app}": {"gpu_count_by_type": dict(counts)}
                    for app, counts in sorted(apps.items())
                },
            }
        )

    async def _teams(self, request: Request) -> Response:
        """The one account that there is, as a team of one: clients look their user up here."""
        account = self._account
        return JSONResponse(
            [
                {
                    "nickname": account.nickname,
                    "full_name": account.full_name,
                    "user_id": account.user_id,
                    "is_personal": True,
                    "is_org": False,
                    "is_locked": False,
                    "lock_reason": None,
                }
            ]
        )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total
