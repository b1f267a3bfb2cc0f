"""The parts of serving an app that both servers share. They are routes, their types, and error answers."""

from __future__ import annotations

import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace, TracebackType
from typing import ClassVar, Protocol

from fal.app.endpoints import Route
from fal.app.gpu import gpu_fault
from fal.exceptions import AppException, FieldException, RequestCancelledException

UNBILLED = {"x-fal-billable-units": "0"}
_OUR_PACKAGES = frozenset(
    {"fal", "fastapi", "starlette", "uvicorn", "anyio", "asyncio", "concurrent", "threading", "_fal_request_output"}
)


class Served(Protocol):
    """An App, or a function served like one.

    Attributes:
        describes_health: whether the OpenAPI description has GET /health.
    """

    describes_health: ClassVar[bool]

    def collect_routes(self) -> dict[Route, Callable[..., object]]:
        """Return the routes and their bound methods."""
        ...

    def health(self) -> object:
        """Return the answer of GET /health, or an awaitable of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """The answer to a request that ended with an exception."""

    status: int
    content: object
    headers: Mapping[str, str] = field(default_factory=dict)


def routes_of(served: Served) -> dict[Route, Callable[..., object]]:
    """Return an app's routes, with resolved annotations.

    Raises:
        ValueError: there is no endpoint, or the annotation of a parameter cannot be resolved.
    """
    routes = served.collect_routes()
    if not routes:
        raise ValueError(f'{type(served).__name__} has no endpoint: decorate a method with @fal.endpoint("/")')
    for method in routes.values():
        resolve_annotations(method)
    return routes


def resolve_annotations(function: Callable[..., object]) -> None:
    """Resolve each of a function's textual annotations separately.

    A result annotation that cannot be resolved is dropped, and the result is then not checked. FastAPI would treat a
    parameter with such an annotation as a query parameter.

    Raises:
        ValueError: the annotation of a parameter cannot be resolved.
    """
    plain = inspect.unwrap(getattr(function, "__func__", function))
    given: dict[str, object] = getattr(plain, "__annotations__", {})
    if not any(isinstance(annotation, str) for annotation in given.values()):
        return
    names = getattr(plain, "__globals__", {})
    resolved: dict[str, object] = {}
    for name, annotation in given.items():
        holder = SimpleNamespace(__annotations__={name: annotation})
        try:
            resolved |= typing.get_type_hints(holder, globalns=names, include_extras=True)
        except NameError as error:
            if name != "return":
                raise ValueError(
                    f"{plain.__qualname__}: the annotation {annotation!r} of {name} cannot be resolved: {error}. "
                    "Import it outside of `if TYPE_CHECKING:`, which is never run"
                ) from error
    plain.__annotations__ = resolved


def answer_to(error: Exception) -> ErrorAnswer:
    """Return the answer to a request whose endpoint raised. Print the traceback of a bug."""
    if isinstance(error, FieldException):
        headers: Mapping[str, str] = {}
        if error.billable_units:
            places = 0 if isinstance(error.billable_units, int) else 8
            headers = {"x-fal-billable-units": f"{float(error.billable_units):.{places}f}"}
        return ErrorAnswer(status=error.status_code, content=error.to_pydantic_format(), headers=headers)
    if isinstance(error, AppException):
        return ErrorAnswer(status=error.status_code, content={"detail": error.message})
    if isinstance(error, RequestCancelledException):
        # nginx's status for a client that closed the connection.
        return ErrorAnswer(status=499, content={"detail": error.message})
    print_traceback(error)
    fault = gpu_fault(error)
    if fault is not None:
        return ErrorAnswer(status=fault.status_code, content={"detail": fault.message})
    return ErrorAnswer(status=500, content={"detail": "Internal Server Error"})


def path_not_found(path: str) -> ErrorAnswer:
    """Return a 404 that names the path. This distinguishes it from the platform's 404."""
    return ErrorAnswer(status=404, content={"detail": f"Path {path} not found"}, headers=UNBILLED)


def print_traceback(error: BaseException) -> None:
    """Print a traceback on stderr, starting at the app's first frame."""
    own = error.__traceback__
    while own is not None and _package(own) in _OUR_PACKAGES:
        own = own.tb_next
    traceback.print_exception(type(error), error, own or error.__traceback__)
    sys.stderr.flush()


def _package(frame: TracebackType) -> str:
    return str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
