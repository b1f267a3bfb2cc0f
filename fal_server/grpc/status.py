"""Turns a fault into a gRPC status. It has ErrorInfo, BadRequest and RetryInfo of google.rpc."""

from __future__ import annotations

import re

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from fal_server.core.faults import Fault, InvalidArgument, Unavailable
from fal_server.grpc.caller import REQUEST_ID

DOMAIN = "fal.v1"
DETAILS = "grpc-status-details-bin"
_RETRY_AFTER = Duration(seconds=1)
# Clients accept 8 KiB of trailers by default, which hold the message up to three times, percent-encoded or in base64.
_MOST_ENCODED = 2000
_PRINTABLE = re.compile(rb"[\x20-\x24\x26-\x7e]")


def code_of(fault: Fault) -> grpc.StatusCode:
    """Return the status code of a fault."""
    return grpc.StatusCode[fault.reason]


def trailers(fault: Fault, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata of a refused call."""
    message = shortened(fault.message)
    details: list[Message] = [ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata={"request_id": request_id})]
    if isinstance(fault, InvalidArgument):
        violation = BadRequest.FieldViolation(field=fault.field, description=message)
        details.append(BadRequest(field_violations=[violation]))
    if isinstance(fault, Unavailable):
        details.append(RetryInfo(retry_delay=_RETRY_AFTER))
    status = Status(code=code_of(fault).value[0], message=message, details=[_packed(detail) for detail in details])
    return ((REQUEST_ID, request_id), (DETAILS, status.SerializeToString()))


def shortened(message: str) -> str:
    """Return a message that fits into trailers. It keeps the start and, for installers' reasons, more of the end."""
    encoded = message.encode(errors="replace")
    if _size(encoded) <= _MOST_ENCODED:
        return encoded.decode()
    gap = " [...] "
    head = _cut(message, _MOST_ENCODED // 3)
    tail = _cut(message[::-1], _MOST_ENCODED * 2 // 3 - len(gap) * 3)[::-1]
    return head + gap + tail


def _cut(text: str, most: int) -> str:
    kept: list[str] = []
    for character in text:
        most -= _size(character.encode(errors="replace"))
        if most < 0:
            break
        kept.append(character if character.isprintable() or character in "\n\t" else "?")
    return "".join(kept)


def _size(encoded: bytes) -> int:
    """Return how many bytes a text has in percent-encoding. In this form gRPC sends a status message."""
    plain = len(_PRINTABLE.findall(encoded))
    return plain + 3 * (len(encoded) - plain)


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
