"""Requests to apps: finds the app, checks the key, gets a place on a runner, and has the request relayed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import CALL_APPS, allows
from fal_server.access.tokens import Tokens
from fal_server.core.faults import (
    DeadlineExceeded,
    Fault,
    NotFound,
    PermissionDenied,
    StartTimedOut,
    Unauthenticated,
    Unavailable,
)
from fal_server.core.identity import Principal
from fal_server.core.routing import Outcome
from fal_server.http.gateway.app_request import AppRequest
from fal_server.http.gateway.deadlines import Deadlines
from fal_server.http.gateway.relay import Relay
from fal_server.http.gateway.upstream import Pool
from fal_server.http.server.errors import FAILED, HttpError, answers_preflight, refuse
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import RequestIds
from fal_server.live.dispatch import Dispatcher, Lease, RoutedApp

_log = logging.getLogger(__name__)


class Gateway:
    """Answers exchanges whose path names an app.

    Args:
        connect_seconds: how long a runner may take to accept a connection.
        tokens: that open WebSockets to private apps instead of a key; None takes none.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        access: Authenticator,
        *,
        connect_seconds: float = 5,
        tokens: Tokens | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.access = access
        self.connect_seconds = connect_seconds
        self._tokens = tokens
        self.pool = Pool()
        self.deadlines = Deadlines()
        self._ids = RequestIds()
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer, now or later. On the usual way nothing waits, and so no task is made."""
        request_id = self._ids.next()
        try:
            call = AppRequest(exchange)
            app = self.dispatcher.find(call.owner, call.app)
            if app is None:
                raise HttpError(404, "bad_request", f"there is no app {call.owner}/{call.app}: see `fal apps list`")
            caller: str | None = None
            if call.key is not None:
                principal = self.access.cached(*call.key)
                if principal is not None:
                    caller = principal.key_id
                    if not app.public:
                        self._check(principal)
            if caller is None and not app.public:
                if call.key is None and not (call.token and exchange.upgrade and self._tokens):
                    if answers_preflight(exchange, request_id):
                        return
                    raise _unauthenticated("the app is private: send a key as `Authorization: Key ID:SECRET`")
                self._wait(exchange, call, app, request_id, authenticated=False, caller=None)
                return
            lease = self.dispatcher.try_acquire(app.name, request_id=request_id, caller=caller, hint=call.hint)
        except HttpError as refusal:
            refuse(exchange, request_id, refusal)
            return
        if lease is None:
            self._wait(exchange, call, app, request_id, authenticated=True, caller=caller)
            return
        self._relay(exchange, call, app, request_id, lease)

    def _relay(self, exchange: Exchange, call: AppRequest, app: RoutedApp, request_id: str, lease: Lease) -> None:
        Relay(self, exchange, call, lease, request_id, app.request_timeout).begin()

    def _wait(
        self,
        exchange: Exchange,
        call: AppRequest,
        app: RoutedApp,
        request_id: str,
        *,
        authenticated: bool,
        caller: str | None,
    ) -> None:
        """Go on in a task, because a key must be looked up or a runner waited for."""
        waiter = _Waiter()
        exchange.sink = waiter
        waiter.task = self.spawn(
            self._admit(exchange, call, app, request_id, authenticated=authenticated, caller=caller)
        )

    async def _admit(
        self,
        exchange: Exchange,
        call: AppRequest,
        app: RoutedApp,
        request_id: str,
        *,
        authenticated: bool,
        caller: str | None,
    ) -> None:
        try:
            if not authenticated and call.key is not None:
                principal = await self._authenticate(*call.key)
                caller = principal.key_id
            elif not authenticated:
                caller = await self._by_token(call)
            lease = await self._acquire(app, request_id, caller, call)
        except HttpError as refusal:
            exchange.sink = None
            refuse(exchange, request_id, refusal)
            return
        except Exception:  # noqa: BLE001 - whatever a service raises, the caller gets an answer
            _log.exception("no runner could be got for a request to %s", app.name)
            exchange.sink = None
            refuse(exchange, request_id, HttpError(500, "internal_error", FAILED))
            return
        # Nothing is awaited from here on: the lease cannot be lost to a cancellation.
        if exchange.gone:
            self.dispatcher.release(lease, Outcome.CLIENT_GONE)
            return
        self._relay(exchange, call, app, request_id, lease)

    async def _by_token(self, call: AppRequest) -> str:
        assert self._tokens is not None
        caller = await self._tokens.caller(call.token or "", call.owner, call.app)
        if caller is None:
            raise _unauthenticated(
                "fal_jwt_token is not good for this app, or not any more: ask for another one with POST /tokens/"
            )
        return caller

    async def _authenticate(self, key_id: str, secret: str) -> Principal:
        try:
            principal = await self.access.authenticate(key_id, secret)
        except Unauthenticated as fault:
            raise _unauthenticated(fault.message) from fault
        except PermissionDenied as fault:
            raise HttpError(403, "bad_request", fault.message) from fault
        except Fault as fault:
            raise _of_fault(fault) from fault
        self._check(principal)
        return principal

    def _check(self, principal: Principal) -> None:
        if not allows(principal, CALL_APPS):
            raise HttpError(403, "bad_request", f"the key {principal.key_id} may not call apps: use one that may")

    async def _acquire(self, app: RoutedApp, request_id: str, caller: str | None, call: AppRequest) -> Lease:
        timeout = app.request_start_timeout if call.start_timeout is None else call.start_timeout
        try:
            return await self.dispatcher.acquire(
                app.name, request_id=request_id, caller=caller, hint=call.hint, start_timeout=timeout
            )
        except DeadlineExceeded as fault:
            raise HttpError(504, "request_timeout", fault.message, b"x-fal-request-timeout-type: user\r\n") from fault
        except Fault as fault:
            raise _of_fault(fault) from fault

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run beside; held until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Let go of the runners. The front door is closed before, so no request is under way."""
        self.pool.close()
        self.deadlines.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Waiter:
    """Stands for a request that has no runner yet; its body waits in the exchange."""

    __slots__ = ("task",)

    task: asyncio.Task[None]

    def on_body(self) -> None:
        """It is kept for the runner."""

    def on_client_gone(self) -> None:
        """Give up the place."""
        self.task.cancel()

    def on_client_slow(self) -> None:
        """Nothing is sent yet."""

    def on_client_ready(self) -> None:
        """Nothing is sent yet."""


def _unauthenticated(detail: str) -> HttpError:
    return HttpError(401, "bad_request", detail, b"www-authenticate: Key\r\n")


def _of_fault(fault: Fault) -> HttpError:
    if isinstance(fault, NotFound):
        return HttpError(404, "bad_request", fault.message)
    if isinstance(fault, StartTimedOut):
        return HttpError(504, "startup_timeout", fault.message)
    if isinstance(fault, Unavailable):
        return HttpError(503, "runner_scheduling_failure", fault.message)
    return HttpError(500, "internal_error", fault.message)
