"""The controller's errors. HTTP and gRPC map them to their own status codes."""

from __future__ import annotations

import errno

# These report a lack on the machine; the request is not to blame.
_NODE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ENOMEM,
        errno.EAGAIN,  # no further process
        errno.EMFILE,
        errno.ENOBUFS,
        errno.EADDRNOTAVAIL,  # no local port is free
        errno.ENFILE,
    }
)

CONTROLLER_FAILED = "the controller failed; its log says why"
"""The message to callers for an unexpected error."""


class Fault(Exception):
    """The base class. The message is shown to the caller; it says what is wrong and what to do next."""

    reason = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(Fault):
    """An argument is wrong.

    Args:
        field: the name of the request's field, as in the .proto file.
        message: what is wrong with it and what would be right.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class UnusableIdempotencyKey(InvalidArgument):
    """The Idempotency-Key is malformed, or belongs to another request."""

    def __init__(self, message: str) -> None:
        super().__init__("Idempotency-Key", message)


class NotFound(Fault):
    """The named object does not exist. The message contains "not found", which published programs look for.

    Args:
        thing: its kind and name, such as `app 'hello'`.
        detail: why it does not exist, or what to do.
    """

    reason = "NOT_FOUND"

    def __init__(self, thing: str, detail: str = "") -> None:
        super().__init__(f"{thing} not found: {detail}" if detail else f"{thing} not found")


class AlreadyExists(Fault):
    """An object of that name already exists."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(Fault):
    """The object's state does not allow this."""

    reason = "FAILED_PRECONDITION"


class Unauthenticated(Fault):
    """The key is missing, wrong or revoked."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(Fault):
    """The key is valid, but lacks a permission."""

    reason = "PERMISSION_DENIED"


class ResourceExhausted(Fault):
    """A limit is reached, and waiting does not help."""

    reason = "RESOURCE_EXHAUSTED"


class TooLarge(ResourceExhausted):
    """The request's content is larger than accepted."""


class RateLimited(ResourceExhausted):
    """Requests come faster than a quota allows. Unlike for other limits, waiting helps.

    Args:
        retry_after_seconds: when the next one is allowed.
    """

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unimplemented(Fault):
    """This controller does not support it."""

    reason = "UNIMPLEMENTED"


class Unavailable(Fault):
    """It is not possible now; the same call may succeed later."""

    reason = "UNAVAILABLE"


class NodeTrouble(Unavailable):
    """The machine cannot do it now. Its disk may be full, and the caller is not to blame."""

    @staticmethod
    def explains(error: BaseException) -> bool:
        """Return whether an error is of this kind."""
        return isinstance(error, NodeTrouble) or (isinstance(error, OSError) and error.errno in _NODE_ERRORS)


class StartTimedOut(Unavailable):
    """A runner was not ready within its startup_timeout."""


class StartDelayed(Unavailable):
    """No runner serves, and the next start is delayed. Earlier ones failed.

    Args:
        retry_after_seconds: when it is tried.
    """

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(Fault):
    """The caller's time limit has passed."""

    reason = "DEADLINE_EXCEEDED"


class Aborted(Fault):
    """A newer call replaced this one."""

    reason = "ABORTED"
