"""Routes requests: reserved paths to the controller itself, all others to apps."""

from __future__ import annotations

from collections.abc import Iterable

from fal_server.core.accounts import RESERVED_NICKNAMES
from fal_server.http.gateway.app_request import segment
from fal_server.http.gateway.gateway import Gateway
from fal_server.http.routes.hosts import QUEUE_PREFIX, AllowedHosts, is_queue_host
from fal_server.http.routes.proxy import PROXY, is_proxy, lead
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.errors import HttpError, answer_preflight, send_error
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import origin_form
from fal_server.http.server.request_ids import RequestIds

_QUEUE = (b"q", b"Q")
_DASHBOARD = b"/ui"
_RESERVED = frozenset(name.encode() for name in RESERVED_NICKNAMES)


class Router:
    """Sends exchanges to the gateway or the controller's own ASGI application.

    On a queue host, the path of an app means the queue, as if it were below /queue. Pages of other origins may call the
    controller's own paths, so preflights for them are answered here.

    Args:
        hosts: the allowed hosts of requests; None allows all.
        dashboard: answers everything below /ui, which pages of other origins may not call.
        more: additional first segments of the controller's own paths, besides the reserved nicknames.
    """

    def __init__(
        self,
        gateway: Gateway,
        rest: AsgiAdapter,
        hosts: AllowedHosts | None = None,
        dashboard: AsgiAdapter | None = None,
        more: Iterable[str] = (),
    ) -> None:
        self._reserved = _RESERVED | {name.encode() for name in more}
        self._dashboard = dashboard or rest
        self._hosts = hosts
        self._gateway = gateway
        self._rest = rest
        self._suspended = ""
        self._ids = RequestIds()

    def drain(self) -> None:
        self._rest.drain()
        self._dashboard.drain()

    def suspend(self, reason: str) -> None:
        """Answer every request with 503 and the reason; "" ends that."""
        self._suspended = reason

    def handle(self, exchange: Exchange) -> None:
        """Answer, now or later."""
        if self._suspended:
            send_error(exchange, self._ids.next(), HttpError(503, "runner_scheduling_failure", self._suspended))
            return
        if self._hosts is not None and not self._hosts.admits(exchange.host):
            detail = "the Host of the request is not a name of this controller: `fal up --allowed-host NAME` adds one"
            send_error(exchange, self._ids.next(), HttpError(421, "bad_request", detail))
            return
        target = exchange.target
        if not target.startswith(b"/"):
            target = origin_form(target)
        on_queue = exchange.host.startswith(_QUEUE) and is_queue_host(exchange.host.decode("latin-1"))
        if target.startswith(PROXY) and is_proxy(target):
            if answer_preflight(exchange, self._ids.next()):
                return
            try:
                lead(exchange)
            except HttpError as error:
                send_error(exchange, self._ids.next(), error)
                return
            target, on_queue = exchange.target, False
        end = target.find(b"/", 1)
        owner = target[1:end]
        own = (
            end < 0
            or owner in self._reserved
            or b"?" in owner
            or (b"%" in owner and segment(owner) in RESERVED_NICKNAMES)
        )
        if on_queue and (owner == b"workflows" or not own):
            exchange.target = QUEUE_PREFIX.encode() + target
            own = True
        if not own:
            self._gateway.handle(exchange)
        elif target.startswith(_DASHBOARD) and target[3:4] in {b"", b"/", b"?"}:
            self._dashboard.handle(exchange)
        elif not answer_preflight(exchange, self._ids.next()):
            self._rest.handle(exchange)
