"""A tree of the client's errors. It has a table of gRPC codes and one of HTTP statuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class FalError(Exception):
    """The base of all errors that this client raises on purpose."""


class ConfigError(FalError, ValueError):
    """A setting, a file or an address is missing or malformed. The message says which and how to fix it."""


class ArgumentError(FalError, ValueError):
    """An argument was refused before anything was sent.

    Attributes:
        argument: the name of the argument.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument


class UnauthenticatedError(FalError):
    """There are no credentials, or the controller rejects them."""


class MissingCredentialsError(UnauthenticatedError, ConfigError):
    """No credentials were found; nothing was sent."""


class InsecureChannelError(ConfigError):
    """Nothing was sent, because credentials would go to another machine in plaintext."""


class ClientClosedError(FalError, RuntimeError):
    """The client was closed before this call."""


class ExecLinkError(FalError):
    """The link to a command broke: its outcome is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """A field of a request that the controller did not accept (google.rpc.BadRequest)."""

    field: str
    description: str


class CallError(FalError):
    """A call failed. The controller answered with an error, or not at all.

    Attributes:
        code: the gRPC status code, such as "NOT_FOUND".
        details: the controller's message.
        method: the called method, such as "Runners.StopRunner"; empty if unknown.
        target: the controller, as host:port.
        reason, domain, metadata: from google.rpc.ErrorInfo; empty without one.
        field_violations: from google.rpc.BadRequest.
        retry_delay_seconds: from google.rpc.RetryInfo; None without one.
        request_id: the call's id in the controller's log; None if the response had none.
        http_status: the status of the response to an HTTP call; None for all other errors.
    """

    code: ClassVar[str] = "UNKNOWN"
    hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        details: str = "",
        method: str = "",
        target: str = "",
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[FieldViolation] = (),
        retry_delay_seconds: float | None = None,
        request_id: str | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.details = details
        self.method = method
        self.target = target
        self.reason = reason
        self.domain = domain
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.retry_delay_seconds = retry_delay_seconds
        self.request_id = request_id
        self.http_status = http_status


class CallCancelledError(CallError):
    """The call was cancelled."""

    code = "CANCELLED"


class UnknownError(CallError):
    """The controller failed without a known reason."""


class InvalidArgumentError(CallError, ValueError):
    """The controller did not accept an argument; `field_violations` names it."""

    code = "INVALID_ARGUMENT"


class DeadlineExceededError(CallError, TimeoutError):
    """No response came in time. The call may or may not have taken effect."""

    code = "DEADLINE_EXCEEDED"
    hint = "Check whether it took effect before repeating it; FAL_GRPC_TIMEOUT sets the seconds to wait."


class NotFoundError(CallError):
    """The object that the call names does not exist."""

    code = "NOT_FOUND"


class AlreadyExistsError(CallError):
    """That name or id is taken."""

    code = "ALREADY_EXISTS"


class PermissionDeniedError(CallError):
    """The credentials are valid, but lack the permission."""

    code = "PERMISSION_DENIED"
    hint = "Use a key that may: `fal keys create --scope ADMIN` creates one."


class ResourceExhaustedError(CallError):
    """A limit is reached: a quota, a size, a rate."""

    code = "RESOURCE_EXHAUSTED"


class FailedPreconditionError(CallError):
    """The current state does not allow this."""

    code = "FAILED_PRECONDITION"


class AbortedError(CallError):
    """A concurrent change took precedence."""

    code = "ABORTED"


class OutOfRangeError(CallError):
    """A position is beyond the end."""

    code = "OUT_OF_RANGE"


class UnimplementedError(CallError):
    """The controller does not serve this call."""

    code = "UNIMPLEMENTED"


class InternalError(CallError):
    """The controller failed."""

    code = "INTERNAL"


class UnavailableError(CallError):
    """The controller cannot serve the call now. The same call may succeed later."""

    code = "UNAVAILABLE"


class UnreachableError(UnavailableError):
    """The controller was not reached, so the call had no effect.

    Attributes:
        cause: why, such as "connection refused".
    """

    cause: str = ""


class DataLossError(CallError):
    """Stored data is lost or damaged."""

    code = "DATA_LOSS"


class KeyRejectedError(CallError, UnauthenticatedError):
    """The controller rejects the credentials."""

    code = "UNAUTHENTICATED"
    hint = "Check FAL_KEY or the key of the profile; `fal doctor` shows which one is used."


BY_CODE: Mapping[str, type[CallError]] = {
    error.code: error
    for error in (
        CallCancelledError,
        UnknownError,
        InvalidArgumentError,
        DeadlineExceededError,
        NotFoundError,
        AlreadyExistsError,
        PermissionDeniedError,
        ResourceExhaustedError,
        FailedPreconditionError,
        AbortedError,
        OutOfRangeError,
        UnimplementedError,
        InternalError,
        UnavailableError,
        DataLossError,
        KeyRejectedError,
    )
}
"""The error for each gRPC status code except OK."""

BY_HTTP_STATUS: Mapping[int, type[CallError]] = {
    400: InvalidArgumentError,
    401: KeyRejectedError,
    402: ResourceExhaustedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: UnimplementedError,
    406: InvalidArgumentError,
    408: DeadlineExceededError,
    409: AlreadyExistsError,
    410: NotFoundError,
    411: InvalidArgumentError,
    412: FailedPreconditionError,
    413: ResourceExhaustedError,
    414: InvalidArgumentError,
    415: InvalidArgumentError,
    416: OutOfRangeError,
    417: InvalidArgumentError,
    422: InvalidArgumentError,
    423: FailedPreconditionError,
    424: FailedPreconditionError,
    425: UnavailableError,
    426: UnimplementedError,
    428: FailedPreconditionError,
    429: ResourceExhaustedError,
    431: InvalidArgumentError,
    499: CallCancelledError,
    500: InternalError,
    501: UnimplementedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
    505: UnimplementedError,
    507: ResourceExhaustedError,
}
"""The error for each HTTP status that a controller, or a proxy in front of it, sends. Any other is an UnknownError."""


class _Code(Protocol):
    @property
    def name(self) -> str: ...


class RpcFailure(Protocol):
    """The parts that grpc.Call and grpc.aio.AioRpcError share."""

    def code(self) -> _Code: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


DOMAIN = "fal.v1"
"""The domain of the ErrorInfo that this project's controllers send."""

_NO_TLS = "it does not speak TLS"

# Text in gRPC's lower-cased message if there was no connection, and the cause to show. The first match wins.
_UNREACHABLE = (
    ("connection refused", "connection refused"),
    ("dns resolution failed", "the name cannot be resolved"),
    ("name resolution", "the name cannot be resolved"),
    ("name or service not known", "the name cannot be resolved"),
    ("could not contact dns", "the name cannot be resolved"),
    ("errors resolving", "the name cannot be resolved"),
    ("address lookup failed", "the name cannot be resolved"),
    ("wrong_version_number", _NO_TLS),  # before "certificate", which gRPC adds to each failed handshake
    ("certificate", "its TLS certificate is not trusted"),
    ("handshake", "the TLS handshake failed"),
    ("ssl_error", "the TLS handshake failed"),
    ("no route to host", "no route to host"),
    ("network is unreachable", "the network is unreachable"),
    ("failed to connect", "no connection"),
    ("connection attempt timed out", "timed out"),
)


def from_rpc(failure: RpcFailure, *, method: str, target: str, local: bool, start: str, named_by: str) -> CallError:
    """Return the error for a failed call.

    Args:
        failure: gRPC's exception.
        method: the called method, such as "Runners.StopRunner".
        target: host:port.
        local: whether the target is on this machine, so that the advice is to start it.
        start: the command that starts it.
        named_by: what has its address, such as "FAL_HOST".
    """
    trailing = list(failure.trailing_metadata() or ())
    details = failure.details() or ""
    rich = _rich_details(trailing)
    rich.update(details=details, method=method, target=target, request_id=_text(trailing, "x-request-id"))
    kind = BY_CODE.get(failure.code().name, UnknownError)
    if kind is UnavailableError:
        lowered = details.lower()
        cause = next((cause for sign, cause in _UNREACHABLE if sign in lowered), None)
        if cause is not None:
            message = _unreachable(cause, target=target, local=local, start=start, named_by=named_by)
            error = UnreachableError(message, **rich)  # type: ignore[arg-type]
            error.cause = cause
            return error
    # Messages of this project's controllers already name the next step.
    complete = details and rich.get("domain") == DOMAIN
    message = details if complete else _message(kind, details, method=method, target=target)
    return kind(message, **rich)  # type: ignore[arg-type]


def runner_not_found(runner_id: str) -> NotFoundError:
    """Return the error for a runner that the controller does not list."""
    return NotFoundError(f"There is no runner {runner_id}, or it ended long ago; `fal runners list` shows which exist.")


def not_running(start: str, named_by: str) -> str:
    """Return what to do about a controller that cannot be reached. It may be this machine's.

    Args:
        start: the command that starts it.
        named_by: what has its address.
    """
    started = "one here" if start == "fal up" else "it"
    return f"Is it running? `{start}` starts {started}; the address is from {named_by}."


def _unreachable(cause: str, *, target: str, local: bool, start: str, named_by: str) -> str:
    if cause == _NO_TLS:
        advice = (
            f"Write http:// before the host, which means plaintext; the address is from {named_by}."
            if local
            else "Plaintext goes to this machine only: give that controller a certificate (`fal up --tls`)."
        )
    elif "TLS" in cause:
        advice = (
            "SSL_CERT_FILE names the certificates to trust; http:// before the host means plaintext (loopback only)."
        )
    elif local:
        advice = not_running(start, named_by)
    else:
        advice = f"Check the network and the address, which is from {named_by}; `fal up` starts a controller here."
    return f"Could not reach the controller at {target}: {cause}. {advice}"


def _message(kind: type[CallError], details: str, *, method: str, target: str) -> str:
    text = details.strip()
    if kind is DeadlineExceededError:
        text = f"{method or 'The call'}: no answer from {target} in time."
    elif kind is UnimplementedError:
        reported = f" It says: {text}" if text and "not found" not in text.lower() else ""
        text = f"The controller at {target} does not serve {method or 'this call'}.{reported}"
    elif kind is UnavailableError:
        text = f"The controller at {target} is not available now: {text or 'it did not say why'}. Try again soon."
    elif not text:
        text = f"{method or 'The call'} failed with {kind.code} at {target}, which did not say why."
    if not kind.hint:
        return text
    stop = "" if text.endswith((".", "!", "?")) else "."
    return f"{text}{stop} {kind.hint}"


def _text(metadata: list[tuple[str, str | bytes]], name: str) -> str | None:
    return next((value for key, value in metadata if key == name and isinstance(value, str)), None)


def _rich_details(metadata: list[tuple[str, str | bytes]]) -> dict[str, object]:
    packed = next((value for key, value in metadata if key == "grpc-status-details-bin"), None)
    if not isinstance(packed, bytes):
        return {}
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

    found: dict[str, object] = {}
    try:
        for item in status_pb2.Status.FromString(packed).details:
            info, bad, retry = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.BadRequest(),
                error_details_pb2.RetryInfo(),
            )
            if item.Unpack(info):
                found.update(reason=info.reason, domain=info.domain, metadata=dict(info.metadata))
            elif item.Unpack(bad):
                found["field_violations"] = [
                    FieldViolation(field=violation.field, description=violation.description)
                    for violation in bad.field_violations
                ]
            elif item.Unpack(retry):
                found["retry_delay_seconds"] = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        # The status is enough to say what happened.
        return found
    return found


for _error in list(globals().values()):
    if isinstance(_error, type) and issubclass(_error, FalError):
        # Tracebacks then show the module that users import from.
        _error.__module__ = "fal.api"
