"""What the gateway answers of its own accord, in the form that the published clients read."""

from __future__ import annotations

from fal_server.http.exchange import Exchange
from fal_server.http.messages import error_body

FAILED = "the controller failed; its log says why"


class Refusal(Exception):
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


def refuse(exchange: Exchange, request_id: str, refusal: Refusal) -> None:
    """Answer with an error of the gateway's own."""
    fields = b"content-type: application/json\r\nx-fal-request-id: %b\r\nx-fal-error-type: %b\r\n%b" % (
        request_id.encode(),
        refusal.error_type.encode(),
        refusal.fields,
    )
    exchange.respond(refusal.status, fields, error_body(refusal.detail, refusal.error_type))
