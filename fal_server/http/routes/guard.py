"""Admits callers of the controller's own routes by their keys' permissions. It does so before a body is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fal_server.access.acting import USER_ID, Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.authorization import first_key, token_of
from fal_server.access.permissions import CALL_APPS, NO_PUBLIC_APP, WRITE_FILES, allows, require, require_app
from fal_server.access.resources import require_whole
from fal_server.access.tokens import Tokens
from fal_server.core.faults import NotFound, PermissionDenied, Unauthenticated
from fal_server.core.identity import AppId, Principal
from fal_server.http.routes.permissions import OF_NO_APP, RECORDED_ROUTES, ROUTE_PERMISSIONS, Admission
from fal_server.http.server.asgi import EXCHANGE, REQUEST_ID
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.peers import address_of
from fal_server.live.dispatch import RoutedApp

OpenEndpoint: TypeAlias = "Callable[[Request], Awaitable[Response]]"
Endpoint: TypeAlias = "Callable[[Request, Principal], Awaitable[Response]]"
_OPEN = (
    Admission.ANYONE,
    Admission.CALLERS_OF_THE_APP,
    Admission.CALLERS_OF_THE_METHOD,
    Admission.CALLERS_OF_THE_ROUTES,
)


class Guard:
    """Makes routes that admit only the callers in the table of permissions."""

    def __init__(self, authenticator: Authenticator, tokens: Tokens, teams: Teams, recorder: Recorder) -> None:
        self._authenticator = authenticator
        self._tokens = tokens
        self._teams = teams
        self._recorder = recorder

    def route(self, method: str, path: str, endpoint: Endpoint) -> Route:
        """Return a route whose endpoint gets the caller.

        Raises:
            KeyError: the table has no row for it.
        """
        needed = ROUTE_PERMISSIONS[method, path]
        assert needed not in _OPEN, f"{method} {path} is open"

        async def admitted(request: Request) -> Response:
            caller = await self._admit(request, needed)
            _hold_to_part(request, caller, path)
            self._note_caller(request, caller)
            if (method, path) in RECORDED_ROUTES:
                await self._record(request, caller, f"{method} {path}")
            return await endpoint(request, caller)

        return Route(path, admitted, methods=[method])

    def open_route(self, method: str, path: str, endpoint: OpenEndpoint) -> Route:
        """Return a route that needs no permission or whose endpoint checks callers.

        Raises:
            KeyError: the table has no row for it.
        """
        admission = ROUTE_PERMISSIONS[method, path]
        assert admission in _OPEN, f"{method} {path} is not open"
        return Route(path, endpoint, methods=[method])

    async def caller_of_app(self, request: Request, app: RoutedApp) -> Principal | None:
        """Return the caller of an app. None is a caller without a valid key, which only public apps admit.

        Raises:
            Unauthenticated: the app is private, and the key is missing or wrong.
            PermissionDenied: the app is private, and the key may not call apps.
            NotFound: the app is private, and outside the key's scope.
        """
        if app.public:
            caller = await self.known_caller(request)
            if caller is None:
                return None
        else:
            key = _key_of(request)
            if key is None:
                raise Unauthenticated(NO_PUBLIC_APP)
            caller = await self._authenticated(*key)
            require_app(caller, app.app_id)
        self._note_caller(request, caller)
        return caller

    async def known_caller(self, request: Request) -> Principal | None:
        """Return the caller; None without a valid key or token."""
        try:
            return await self.identify(request)
        except (Unauthenticated, PermissionDenied, NotFound):
            return None

    async def known_holder(self, request: Request) -> Principal:
        """Return the caller of a route that checks each call itself. Any valid key suffices.

        Raises:
            Unauthenticated: there is no valid key or token.
        """
        caller = await self.identify(request)
        self._note_caller(request, caller)
        return caller

    async def is_of(self, caller: Principal | None, key_id: str | None, app: RoutedApp) -> bool:
        """Return whether a caller may see this object. It was created with a key at an app.

        Other keys of the app's account may see it if they could call the app as a private one; other keys of the
        creating account may, if they may call apps and are not restricted.

        Args:
            caller: None is one without a valid key.
            key_id: None is nobody's: anyone who knows the id of an object created without a key may see it.
        """
        if key_id is None or (caller is not None and caller.key_id == key_id):
            return True
        if caller is None or not allows(caller, CALL_APPS):
            return False
        if caller.scope.account == app.app_id.account:
            return caller.scope.reaches(app.app_id)
        made_by = await self._authenticator.account_of(key_id)
        return caller.scope.account == made_by and not caller.scope.restrictions.limit

    async def identify(self, request: Request) -> Principal:
        """Return the caller.

        Raises:
            Unauthenticated: there is no valid key or token.
        """
        key, user_id = _key_of(request), request.headers.get(f"x-{USER_ID}", "")
        if key is not None:
            caller = await self._authenticated(*key)
            self._teams.require_own(caller, user_id)
            return caller
        token = token_of(request.headers.get("authorization", ""))
        if token:
            return await self._teams.bearer(token, user_id)
        raise Unauthenticated("send a key as `Authorization: Key ID:SECRET`; `fal keys create` makes one")

    async def _record(self, request: Request, caller: Principal, action: str) -> None:
        named = ", ".join(f"{name}={value}" for name, value in request.path_params.items())
        source, request_id = address_of(request.client), request.scope["state"][REQUEST_ID]
        await self._recorder.record(caller, action, named, source=source, request_id=request_id)

    def _note_caller(self, request: Request, caller: Principal) -> None:
        """Make the response end with the caller's key.

        Raises:
            Unauthenticated: the key has ended during its look-up.
            PermissionDenied: the membership has.
        """
        self._authenticator.open_calls.check_caller(caller)
        exchange: Exchange = request.scope["state"][EXCHANGE]
        exchange.key_id = caller.key_id
        exchange.membership = caller.membership

    async def _admit(self, request: Request, needed: str | Admission) -> Principal:
        if needed is Admission.UPLOADERS:
            holder = await self._holder_of_token(request)
            if holder is not None:
                return holder
        caller = await self.identify(request)
        if isinstance(needed, str):
            require(caller, needed)
        elif not allows(caller, WRITE_FILES):
            require(caller, CALL_APPS)
        return caller

    async def _holder_of_token(self, request: Request) -> Principal | None:
        token = token_of(request.headers.get("authorization", ""))
        return await self._tokens.uploader(token) if token else None

    async def _authenticated(self, key_id: str, secret: str) -> Principal:
        return self._authenticator.cached(key_id, secret) or await self._authenticator.authenticate(key_id, secret)


def _hold_to_part(request: Request, caller: Principal, path: str) -> None:
    """Refuse a caller whose key is for one app or environment. A route about that is allowed.

    Raises:
        PermissionDenied: the route is about the whole account.
        NotFound: it is about another app.
    """
    if not caller.scope.restrictions.limit or path in OF_NO_APP:
        return
    app = request.path_params.get("app")
    if app is None:
        require_whole(caller)
    elif not caller.scope.reaches(AppId.parse(caller.scope.account, app)):
        raise NotFound("app", f"key {caller.key_id} is for another one")


def names_key(request: Request) -> bool:
    """Return whether a request names its caller by a key or token."""
    return "authorization" in request.headers


def _key_of(request: Request) -> tuple[str, str] | None:
    return first_key(request.headers.getlist("authorization"))
