"""What the gateway answers of its own accord, in the form that the published clients read."""

from __future__ import annotations

from email.utils import formatdate

from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import error_body

FAILED = "the controller failed; its log says why"


class HttpError(Exception):
    """The gateway answers this itself.

    Args:
        status: of the answer.
        error_type: one of the published words.
        detail: for people: what is wrong, and what to do.
        fields: further header lines, each ended by CRLF.
    """

    def __init__(self, status: int, error_type: str, detail: str, fields: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.error_type = error_type
        self.detail = detail
        self.fields = fields


def refuse(exchange: Exchange, request_id: str, refusal: HttpError) -> None:
    """Answer with an error of the gateway's own."""
    # A page of another origin may read why: nothing in it is anybody's secret.
    fields = (
        b"date: %b\r\ncontent-type: application/json\r\naccess-control-allow-origin: *\r\n"
        b"x-fal-request-id: %b\r\nx-fal-error-type: %b\r\n%b"
    ) % (_date(), request_id.encode(), refusal.error_type.encode(), refusal.fields)
    exchange.respond(refusal.status, fields, error_body(refusal.detail, refusal.error_type))


def answers_preflight(exchange: Exchange, request_id: str) -> bool:
    """Answer where a browser asks whether a page may call; False where it asks no such thing.

    For private apps alone: the question carries no key, so the app itself could never be asked. Whoever has a key may
    call from any page; whether the page may read the answer, the app's own answer says. A public app is asked itself.
    """
    if exchange.method != b"OPTIONS":
        return False
    asked = dict(exchange.headers)
    method = asked.get(b"access-control-request-method")
    if method is None or b"origin" not in asked:
        return False
    wanted = asked.get(b"access-control-request-headers", b"authorization, content-type")
    fields = (
        b"date: %b\r\naccess-control-allow-origin: *\r\naccess-control-allow-methods: %b\r\n"
        b"access-control-allow-headers: %b\r\naccess-control-max-age: 86400\r\n"
        b"vary: access-control-request-method, access-control-request-headers\r\nx-fal-request-id: %b\r\n"
    ) % (_date(), method, wanted, request_id.encode())
    exchange.respond(204, fields, b"")
    return True


def _date() -> bytes:
    """The time, as a server that has a clock says it (RFC 9110, 6.6.1); an app's server says it itself."""
    return formatdate(usegmt=True).encode()
