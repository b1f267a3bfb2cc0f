"""The HTTP status of every fault. One table serves the gateway and all routes."""

from __future__ import annotations

from fal_server.core.faults import (
    CONTROLLER_FAILED,
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RateLimited,
    ResourceExhausted,
    StartDelayed,
    StartTimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnusableIdempotencyKey,
)
from fal_server.http.server.errors import HttpError

# A fault without a row has its base's status. `BY_HTTP_STATUS` of fal_grpc.errors is the reverse mapping.
STATUSES: dict[type[Fault], int] = {
    Fault: 500,
    InvalidArgument: 400,
    UnusableIdempotencyKey: 422,
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    AlreadyExists: 409,
    Aborted: 409,
    FailedPrecondition: 412,
    ResourceExhausted: 429,
    TooLarge: 413,
    Unimplemented: 501,
    Unavailable: 503,
    StartTimedOut: 504,
    DeadlineExceeded: 504,
}
# The published values of x-fal-error-type; the others are `bad_request` below 500 and `internal_error` above.
_ERROR_TYPES: dict[type[Fault], str] = {StartTimedOut: "startup_timeout", DeadlineExceeded: "request_timeout"}


def status_of(kind: type[Fault]) -> int:
    """Return the HTTP status of a kind of fault."""
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


def http_error(fault: Fault) -> HttpError:
    """Return the error to answer with. An internal fault's message stays in the log."""
    status = status_of(type(fault))
    error_type = _ERROR_TYPES.get(type(fault), "bad_request" if status < 500 else "internal_error")
    fields = b"www-authenticate: Key\r\n" if status == 401 else b""
    if isinstance(fault, StartDelayed | RateLimited):
        fields += b"retry-after: %d\r\n" % fault.retry_after_seconds
    return HttpError(status, error_type, CONTROLLER_FAILED if status == 500 else fault.message, fields)
