"""Why the controller refuses: one tree of errors, which the gRPC and HTTP faces turn into their own status codes."""

from __future__ import annotations

import errno

# What these say is about what the machine has left, not about what was asked for.
_NODES_OWN = frozenset(
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


class Fault(Exception):
    """The root. The message says which thing is meant and what to do next; it is shown to the caller as it is."""

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
    """The named thing does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(Fault):
    """A thing of that name is there already."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(Fault):
    """The thing exists, but is not in a state in which this can be done."""

    reason = "FAILED_PRECONDITION"


class Unauthenticated(Fault):
    """No key, or one that is wrong or revoked."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(Fault):
    """The key is good, but its scope is too small."""

    reason = "PERMISSION_DENIED"


class ResourceExhausted(Fault):
    """A limit is met, and waiting does not help."""

    reason = "RESOURCE_EXHAUSTED"


class TooLarge(ResourceExhausted):
    """What was sent is larger than what is accepted."""


class Unimplemented(Fault):
    """This controller does not do that."""

    reason = "UNIMPLEMENTED"


class Unavailable(Fault):
    """Not now: the same call may go through later."""

    reason = "UNAVAILABLE"


class NodeTrouble(Unavailable):
    """The machine cannot do it now, as when its disk is full; who asked for it is not to blame."""

    @staticmethod
    def explains(error: BaseException) -> bool:
        """Whether an error is of this kind."""
        return isinstance(error, NodeTrouble) or (isinstance(error, OSError) and error.errno in _NODES_OWN)


class StartTimedOut(Unavailable):
    """A runner was not ready in the time that it may take."""


class DeadlineExceeded(Fault):
    """The time that the caller gave is over."""

    reason = "DEADLINE_EXCEEDED"


class Aborted(Fault):
    """Something newer took this call's place."""

    reason = "ABORTED"
