"""The pages of an account: its keys, the names of its secrets, and its audit log."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import PRESETS
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal
from fal_server.http.dashboard.app import back
from fal_server.http.dashboard.forms import form_of, whole_number
from fal_server.http.dashboard.pages import Pages
from fal_server.http.routes.guard import Guard
from fal_server.services.audit import Audit
from fal_server.services.environments import Environments
from fal_server.services.keys import Keys
from fal_server.services.secrets import Secrets


class AccountPages:
    """Keys, secrets and the audit log."""

    def __init__(
        self, pages: Pages, guard: Guard, *, keys: Keys, secrets: Secrets, environments: Environments, audit: Audit
    ) -> None:
        self._pages = pages
        self._keys = keys
        self._secrets = secrets
        self._environments = environments
        self._audit = audit
        self.routes = [
            guard.route("GET", "/ui/keys", self._list_keys),
            guard.route("POST", "/ui/keys", self._create_key),
            guard.route("POST", "/ui/keys/{key_id}/revoke", self._revoke_key),
            guard.route("GET", "/ui/secrets", self._list_secrets),
            guard.route("POST", "/ui/secrets", self._set_secret),
            guard.route("POST", "/ui/secrets/{name}/unset", self._unset_secret),
            guard.route("GET", "/ui/audit", self._list_audit),
        ]

    async def _list_keys(self, request: Request, caller: Principal) -> Response:
        return await self._show_keys(request, caller, "")

    async def _create_key(self, request: Request, caller: Principal) -> Response:
        form = await form_of(request)
        days = whole_number(form, "days")
        made = await self._keys.create(
            caller,
            preset=form.get("preset", ""),
            alias=form.get("alias", "").strip(),
            expires_at=None if days is None else self._pages.now() + timedelta(days=days),
        )
        return await self._show_keys(request, caller, ":".join(made))

    async def _show_keys(self, request: Request, caller: Principal, made: str) -> Response:
        keys = await self._keys.list(caller.scope)
        return self._pages.show(request, "keys.html", keys=keys[::-1], presets=list(PRESETS), made=made)

    async def _revoke_key(self, request: Request, caller: Principal) -> Response:
        await self._keys.revoke(caller.scope, request.path_params["key_id"])
        return back("/ui/keys", "The key is revoked, and every call with it has ended.")

    async def _list_secrets(self, request: Request, caller: Principal) -> Response:
        chosen = request.query_params.get("environment") or "main"
        return self._pages.show(
            request,
            "secrets.html",
            secrets=await self._secrets.list(caller.scope, chosen),
            environments=[each.name for each in await self._environments.list(caller.scope)],
            chosen=chosen,
        )

    async def _set_secret(self, request: Request, caller: Principal) -> Response:
        form = await form_of(request)
        name, environment = form.get("name", "").strip(), form.get("environment", "main")
        if not name:
            raise InvalidArgument("name", "name is empty: name the secret")
        await self._secrets.set(caller.scope, name, form.get("value", ""), environment=environment)
        return back(
            f"/ui/secrets?environment={quote(environment)}", f"{name} is set. Runners that start from now on get it."
        )

    async def _unset_secret(self, request: Request, caller: Principal) -> Response:
        environment = (await form_of(request)).get("environment", "main")
        await self._secrets.unset(caller.scope, request.path_params["name"], environment=environment)
        return back(f"/ui/secrets?environment={quote(environment)}", "The secret is gone.")

    async def _list_audit(self, request: Request, caller: Principal) -> Response:
        before = whole_number(request.query_params, "before")
        return self._pages.show(request, "audit.html", page=await self._audit.page(caller.scope, before=before))
