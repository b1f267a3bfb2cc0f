"""Answers requests to apps. It finds the app, checks the key, gets a runner, and relays the request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import NO_PUBLIC_APP, require_app
from fal_server.access.tokens import Tokens
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import (
    CONTROLLER_FAILED,
    DeadlineExceeded,
    Fault,
    StartTimedOut,
    Unauthenticated,
    Unavailable,
)
from fal_server.core.identity import AppId
from fal_server.core.openapi import takes_post
from fal_server.core.quotas import usual_quotas
from fal_server.core.requests import CALLER_LEFT, DirectRequest
from fal_server.core.routing import Outcome
from fal_server.http.gateway.app_request import LIFECYCLE, AppRequest
from fal_server.http.gateway.deadlines import Deadlines
from fal_server.http.gateway.keeping_relay import KeepingRelay
from fal_server.http.gateway.message_socket import MessageSocket, is_socket_host
from fal_server.http.gateway.relay import Relay
from fal_server.http.gateway.upstream import Pool, Ways
from fal_server.http.gateway.waiting import WaitingDriver, body_is_here
from fal_server.http.server.errors import HttpError, answer_preflight, send_error
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.faults import http_error
from fal_server.http.server.request_ids import RequestIds
from fal_server.http.server.rules import Limits
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import NOWHERE, Dispatcher, Lease, RoutedApp
from fal_server.live.ended_payloads import EndedPayloads
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.rates import Rates
from fal_server.services.cancellations import Cancellations

_LIFECYCLE = LIFECYCLE.encode()
_log = logging.getLogger(__name__)


class Gateway:
    """Answers exchanges whose path names an app.

    Args:
        ways: see Pool.
        connect_seconds: how long a runner may take to accept a connection.
        body_seconds: in each such interval at least 4 KiB of a request's body must arrive, while the app waits for it.
        tokens: open WebSockets to private apps without a key; None accepts no tokens.
        lifecycle: the default lifetime of files, as JSON, for apps whose caller requests none.
        ended: receives requests at their end; None records none.
        payloads: receives their bodies, too; None keeps none.
        rates: limits the rates of requests; None uses the default quotas.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        catalog: Catalog,
        access: Authenticator,
        cancellations: Cancellations,
        ways: Ways,
        *,
        connect_seconds: float = 5,
        body_seconds: float = Limits().body_seconds,
        tokens: Tokens | None = None,
        lifecycle: str = "",
        ended: EndedRequests | None = None,
        payloads: EndedPayloads | None = None,
        rates: Rates | None = None,
        exports_spans: bool = False,
    ) -> None:
        self.dispatcher = dispatcher
        self._catalog = catalog
        self.access = access
        self._cancellations = cancellations
        self.connect_seconds = connect_seconds
        self.body_seconds = body_seconds
        self._tokens = tokens
        self._lifecycle = f"{LIFECYCLE}: {lifecycle}\r\n".encode() if lifecycle else b""
        self.rates = rates or Rates(usual_quotas)
        self.pool = Pool(ways)
        self.deadlines = Deadlines()
        self.ended = ended
        self._relay_of: Callable[..., Relay] = Relay if payloads is None else partial(KeepingRelay, payloads)
        self._exports_spans = exports_spans
        self._ids = RequestIds()
        self._tasks = TaskSet(_log)

    def handle(self, exchange: Exchange) -> None:
        """Answer now or later. A task is only created if the request must wait."""
        request_id = self._ids.next()
        try:
            request = AppRequest(exchange)
            if self._exports_spans or not request.traceparent:
                request.set_trace(request_id, exported=self._exports_spans)
            if self._lifecycle:
                request.set_default(_LIFECYCLE, self._lifecycle)
            app = self.dispatcher.find(request.owner, request.app) or NOWHERE
            caller: str | None = None
            if request.key is not None:
                principal = self.access.cached(*request.key)
                if principal is not None:
                    caller = exchange.key_id = principal.key_id
                    if not app.public:
                        require_app(principal, app.app_id)
            if caller is None and not app.public:
                if request.key is None and not (request.token and exchange.upgrade and self._tokens):
                    if answer_preflight(exchange, request_id):
                        return
                    raise Unauthenticated(NO_PUBLIC_APP)
                self._wait(exchange, request, app, request_id, authenticated=False, caller=None)
                return
            self.rates.count(app, caller, exchange.address)
            lease = None
            # Assign a slot only after the caller has sent the body. For an upgrade, the app's endpoint at this path
            # decides.
            if not exchange.upgrade and body_is_here(exchange, request.length):
                lease = self.dispatcher.try_acquire(app.app_id, request_id=request_id, caller=caller, hint=request.hint)
        except (Fault, HttpError) as error:
            send_error(exchange, request_id, _http_error(error))
            return
        if lease is None:
            self._wait(exchange, request, app, request_id, authenticated=True, caller=caller)
            return
        self._relay(exchange, request, app, request_id, lease)

    def _relay(
        self,
        exchange: Exchange,
        request: AppRequest,
        app: RoutedApp,
        request_id: str,
        lease: Lease,
        received: float | None = None,
    ) -> None:
        self._relay_of(self, exchange, request, lease, request_id, app, received).start()

    def _wait(
        self,
        exchange: Exchange,
        request: AppRequest,
        app: RoutedApp,
        request_id: str,
        *,
        authenticated: bool,
        caller: str | None,
    ) -> None:
        """Continue in a task. The key must be looked up, or no runner is free."""
        waiting = WaitingDriver(exchange, request.length)
        exchange.driver = waiting
        waiting.task = self.spawn(
            self._admit(exchange, waiting, request, app, request_id, authenticated=authenticated, caller=caller)
        )

    async def _admit(
        self,
        exchange: Exchange,
        waiting: WaitingDriver,
        request: AppRequest,
        app: RoutedApp,
        request_id: str,
        *,
        authenticated: bool,
        caller: str | None,
    ) -> None:
        received = time.monotonic()
        admitted = authenticated
        try:
            if not authenticated and request.key is not None:
                principal = await self.access.authenticate(*request.key)
                require_app(principal, app.app_id)
                caller = exchange.key_id = principal.key_id
            elif not authenticated:
                caller = exchange.key_id = await self._by_token(request, app.app_id)
            if not authenticated:
                self.rates.count(app, caller, exchange.address)
            admitted = True
            if exchange.upgrade and await self._answers_messages(exchange, request, app):
                exchange.driver = None
                if not exchange.gone:
                    MessageSocket(
                        self, exchange, request, app, caller=caller, ids=self._ids, http_error=_http_error
                    ).accept(request_id)
                return
            await waiting.body(self.body_seconds)
            lease = await self._acquire(app, request_id, caller, request)
        except (Fault, HttpError) as error:
            self._refuse(exchange, request, app, request_id, _http_error(error), received if admitted else None)
            return
        except asyncio.CancelledError:
            if admitted and exchange.gone:
                self._record_refused(exchange, request, app, request_id, received)
            raise
        except Exception:  # noqa: BLE001 - whatever a service raises, the client gets a response
            _log.exception("no runner was found for a request to %s", app.app_id)
            failed = HttpError(500, "internal_error", CONTROLLER_FAILED)
            self._refuse(exchange, request, app, request_id, failed, received if admitted else None)
            return
        # There is no await from here on, so the lease cannot be lost to a cancellation.
        if exchange.gone:
            self.dispatcher.release(lease, Outcome.UNUSED)  # nothing was sent
            self._record_refused(exchange, request, app, request_id, received)
            return
        self._relay(exchange, request, app, request_id, lease, received)

    def _refuse(
        self,
        exchange: Exchange,
        request: AppRequest,
        app: RoutedApp,
        request_id: str,
        error: HttpError,
        received: float | None,
    ) -> None:
        """Answer a request that reaches no runner.

        Args:
            received: when it arrived; None if its caller was not admitted, who could otherwise fill the history.
        """
        exchange.driver = None
        send_error(exchange, request_id, error)
        if received is not None:
            self._record_refused(exchange, request, app, request_id, received)

    def _record_refused(
        self, exchange: Exchange, request: AppRequest, app: RoutedApp, request_id: str, received: float
    ) -> None:
        if self.ended is None:
            return
        answered = exchange.error_type is not None
        self.ended.add(
            DirectRequest(
                app_id=app.app_id,
                request_id=request_id,
                runner_id=None,
                revision_id=None,
                path=request.path,
                method=exchange.method,
                key_id=exchange.key_id,
                received=received,
                started=None,
                ended=time.monotonic(),
                code=exchange.code if answered else None,
                error_type=exchange.error_type or CALLER_LEFT,
                bytes_in=exchange.received,
                bytes_out=exchange.sent,
                cold_start=False,
                trace=request.trace,
            )
        )

    async def _answers_messages(self, exchange: Exchange, request: AppRequest, app: RoutedApp) -> bool:
        """Return whether a WebSocket carries requests to an HTTP endpoint. Its host or its path tells that."""
        if is_socket_host(exchange.host.decode("latin-1")):
            return True
        path = request.path.partition(b"?")[0].decode("latin-1")
        return takes_post(await self._catalog.metadata(app.app_id), path) is True

    async def _by_token(self, request: AppRequest, app_id: AppId) -> str:
        assert self._tokens is not None
        caller = await self._tokens.caller(request.token or "", request.owner, app_id)
        if caller is None:
            raise Unauthenticated(
                "fal_jwt_token is not valid for this app, or has expired: get another one with POST /tokens/"
            )
        self.access.open_calls.check(caller)  # it may have been revoked meanwhile
        return caller

    async def _acquire(self, app: RoutedApp, request_id: str, caller: str | None, request: AppRequest) -> Lease:
        timeout = app.request_start_timeout if request.start_timeout is None else request.start_timeout
        return await self.dispatcher.acquire(
            app.app_id, request_id=request_id, caller=caller, hint=request.hint, start_timeout=timeout
        )

    def caller_left(self, lease: Lease, request_id: str, path: bytes) -> None:
        """Tell the app that a complete request on a runner is cancelled. Its caller has left."""
        self.spawn(self._cancellations.tell(lease, request_id, path.decode("latin-1")))

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run in the background."""
        return self._tasks.spawn(work)

    async def close(self) -> None:
        """Close the connections to runners; close the listener first."""
        self.pool.close()
        self.deadlines.close()
        await self._tasks.close()


def _http_error(error: Fault | HttpError) -> HttpError:
    """Return the error to answer with. Two faults have special messages when they end a call."""
    if isinstance(error, HttpError):
        return error
    answer = http_error(error)
    if isinstance(error, DeadlineExceeded):
        answer.fields += b"x-fal-request-timeout-type: user\r\n"
    elif isinstance(error, Unavailable) and not isinstance(error, StartTimedOut):
        answer.error_type = "runner_scheduling_failure"
    return answer
