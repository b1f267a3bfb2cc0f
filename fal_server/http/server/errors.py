"""Responses of the gateway itself, in the published clients' form."""

from __future__ import annotations

from email.utils import formatdate

from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import error_body


class HttpError(Exception):
    """An error that the gateway answers itself.

    Args:
        status: the status code.
        error_type: one of the published values of x-fal-error-type.
        detail: for people: what is wrong, then what to do.
        fields: more header lines, each ended by CRLF.
    """

    def __init__(self, status: int, error_type: str, detail: str, fields: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.error_type = error_type
        self.detail = detail
        self.fields = fields


def send_error(exchange: Exchange, request_id: str, error: HttpError) -> None:
    """Answer with an error of the gateway itself."""
    exchange.error_type = error.error_type
    # A page of another origin may read the reason, which contains no secret.
    fields = (
        b"date: %b\r\ncontent-type: application/json\r\naccess-control-allow-origin: *\r\n"
        b"x-fal-request-id: %b\r\nx-fal-error-type: %b\r\n%b"
    ) % (_date(), request_id.encode(), error.error_type.encode(), error.fields)
    exchange.respond(error.status, fields, error_body(error.detail, error.error_type))


def answer_preflight(exchange: Exchange, request_id: str) -> bool:
    """Answer a CORS preflight to a private app or the controller. Return False for other requests.

    A preflight carries no key, so it can reach neither; a public app answers it itself. A caller with a key may call
    from any page, and the response says whether the page may read it.
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
    """Return the time for a Date field (RFC 9110, 6.6.1). Apps' servers add it to their own responses."""
    return formatdate(usegmt=True).encode()
