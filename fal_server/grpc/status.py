"""From a fault to a gRPC status: the code, the words, and google.rpc's ErrorInfo, BadRequest and RetryInfo."""

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
# Clients take 8 KiB of trailers by default, and the words are in them up to three times, percent-encoded or in base64.
_MOST_ENCODED = 2000
_PRINTABLE = re.compile(rb"[\x20-\x24\x26-\x7e]")


def code_of(fault: Fault) -> grpc.StatusCode:
    """The status code of a fault: its reason is the code's name."""
    return grpc.StatusCode[fault.reason]


def trailers(fault: Fault, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata that goes with a refusal."""
    words = shortened(fault.message)
    details: list[Message] = [ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata={"request_id": request_id})]
    if isinstance(fault, InvalidArgument):
        violation = BadRequest.FieldViolation(field=fault.field, description=words)
        details.append(BadRequest(field_violations=[violation]))
    if isinstance(fault, Unavailable):
        details.append(RetryInfo(retry_delay=_RETRY_AFTER))
    status = Status(code=code_of(fault).value[0], message=words, details=[_packed(detail) for detail in details])
    return ((REQUEST_ID, request_id), (DETAILS, status.SerializeToString()))


def shortened(words: str) -> str:
    """A message that fits into trailers: its beginning and, since installers say the reason last, more of its end."""
    encoded = words.encode(errors="replace")
    if _size(encoded) <= _MOST_ENCODED:
        return encoded.decode()
    gap = " [...] "
    head = _cut(words, _MOST_ENCODED // 3)
    tail = _cut(words[::-1], _MOST_ENCODED * 2 // 3 - len(gap) * 3)[::-1]
    return head + gap + tail


def _cut(words: str, most: int) -> str:
    """As much of the beginning as fits."""
    kept: list[str] = []
    for character in words:
        most -= _size(character.encode(errors="replace"))
        if most < 0:
            break
        kept.append(character if character.isprintable() or character in "\n\t" else "?")
    return "".join(kept)


def _size(encoded: bytes) -> int:
    """Bytes once percent-encoded, as gRPC sends a status message."""
    plain = len(_PRINTABLE.findall(encoded))
    return plain + 3 * (len(encoded) - plain)


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
