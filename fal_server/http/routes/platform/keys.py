"""Keys in the platform API, and its metadata."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import Key, KeyScope, KnownAccounts
from fal_server.core.faults import InvalidArgument, NotFound, PermissionDenied
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.parameters import number
from fal_server.http.routes.platform.queries import expanded, iso, micros_of, paging, place_of, position
from fal_server.http.server.json_body import json_object, text_of
from fal_server.services.keys import Keys

_MOST_LISTED = 1000
_LONGEST_ALIAS = 255


class PlatformKeyRoutes:
    """The routes of keys, and of the platform's metadata. Keys only support the scope API."""

    def __init__(self, keys: Keys, accounts: KnownAccounts, guard: Guard) -> None:
        self._keys = keys
        self._accounts = accounts
        self.routes = [
            guard.route("GET", "/v1/keys", self._list),
            guard.route("POST", "/v1/keys", self._create),
            guard.route("DELETE", "/v1/keys/{key_id}", self._delete),
            guard.open_route("GET", "/v1/meta", self._meta),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        limit, after = number(request, "limit", usual=50, most=_MOST_LISTED), place_of(position(request))
        with_creator = "creator_info" in expanded(request, ("creator_info",))
        found = sorted(
            (key for key in await self._keys.list(caller.scope) if key.scope is KeyScope.API),
            key=lambda key: (key.created_at, key.key_id),
        )
        found = [key for key in found if after is None or (key.created_at, key.key_id) > after]
        page = found[:limit]
        last = page[-1] if len(found) > limit else None
        return JSONResponse(
            {
                **paging(None if last is None else [micros_of(last.created_at), last.key_id]),
                "keys": [self._item(key, with_creator=with_creator) for key in page],
            }
        )

    def _item(self, key: Key, *, with_creator: bool) -> dict[str, str]:
        item = {"key_id": key.key_id, "alias": key.alias, "scope": "API", "created_at": iso(key.created_at)}
        # Accounts have no e-mail addresses here.
        return item | {"creator_nickname": self._accounts.of(key.account).nickname} if with_creator else item

    async def _create(self, request: Request, caller: Principal) -> Response:
        alias = text_of(await json_object(request), "alias")
        if not 1 <= len(alias) <= _LONGEST_ALIAS:
            raise InvalidArgument("alias", f"alias has {len(alias)} characters: give 1 to {_LONGEST_ALIAS}")
        key_id, secret = await self._keys.create(caller, scope=KeyScope.API, alias=alias)
        content = {"key_id": key_id, "key_secret": secret, "key": f"{key_id}:{secret}"}
        return JSONResponse(content, 201, headers={"cache-control": "no-store"})

    async def _delete(self, request: Request, caller: Principal) -> Response:
        """Revoke a key. A missing one counts as revoked, so that a client may repeat it."""
        key_id = request.path_params["key_id"]
        key = await self._keys.find(caller.scope, key_id)
        if key is not None and key.scope is not KeyScope.API:
            raise PermissionDenied(f"key {key_id} is an ADMIN key: revoke it with `fal keys revoke`")
        if key is not None:
            try:
                await self._keys.revoke(caller.scope, key_id)
            except NotFound:  # it was revoked before, or meanwhile
                return Response(status_code=204)
        return Response(status_code=204)

    async def _meta(self, request: Request) -> Response:
        """Answer without addresses. A controller does not know its host's addresses for others."""
        return JSONResponse({"webhook_ip_ranges": []})
