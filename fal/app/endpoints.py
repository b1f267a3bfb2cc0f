"""Marks methods as endpoints, with path and protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from fal.app.billing import BillingDeclaration
from fal.app.health import HealthCheck

_F = TypeVar("_F", bound=Callable[..., object])
ROUTE_ATTRIBUTE = "route_signature"
BILLING_ATTRIBUTE = "billing_declaration"


FROM_ANNOTATIONS = "from annotations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Realtime:
    """How a realtime endpoint exchanges messages.

    Attributes:
        buffering: the most inputs that a session holds; beyond that it drops the oldest. None drops none.
        session_timeout: seconds without an input after which a session ends; None never ends it.
        max_batch_size: the most inputs that one call gets.
        content_type: media type of the messages.
        input_modal, output_modal: the messages' types; None leaves them unchecked.
        encode_message, decode_message: convert to and from bytes; None means msgpack.
    """

    buffering: int | None = None
    session_timeout: float | None = None
    max_batch_size: int = 1
    content_type: str = "application/msgpack"
    input_modal: object = FROM_ANNOTATIONS
    output_modal: object = FROM_ANNOTATIONS
    encode_message: Callable[[object], bytes] | None = None
    decode_message: Callable[[bytes], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where and how a method is served.

    Attributes:
        path: the path, starting with "/".
        is_websocket: served as a WebSocket, rather than as an HTTP POST.
        health_check: set on the endpoint that the platform calls to check the runner's health.
        realtime: set if the method handles single messages of a realtime session.
    """

    path: str
    is_websocket: bool = False
    health_check: HealthCheck | None = None
    realtime: Realtime | None = None


def endpoint(
    path: str,
    *,
    is_websocket: bool = False,
    health_check: HealthCheck | None = None,
    billing: BillingDeclaration | None = None,
) -> Callable[[_F], _F]:
    """Serve the decorated method of an App.

    Args:
        path: the path to serve it at, such as "/" or "/image/edit".
        is_websocket: serve it as a WebSocket; then it must be `async def` and take a `fastapi.WebSocket`. The arguments
            of an HTTP endpoint are the body, the query and so on by FastAPI's rules.
        health_check: make this endpoint the health check.
        billing: declares what the endpoint reports for billing; published with the revision as `billing_components`.

    Raises:
        TypeError: `billing` has no `declaration()`.
        ValueError: the path does not begin with "/", the method already has a path, or a WebSocket has a health check
            or a billing declaration.
    """
    if not path.startswith("/"):
        raise ValueError(f'the path of an endpoint is {path!r}: begin it with "/"')
    if is_websocket and health_check is not None:
        raise ValueError(
            f"{path} is a WebSocket, which cannot be a health check: give the check an endpoint of its own"
        )

    if billing is not None and (
        isinstance(billing, type) or not isinstance(cast("object", billing), BillingDeclaration)
    ):
        raise TypeError(f"billing of {path} is {billing!r}: give an object with a declaration() method")
    if is_websocket and billing is not None:
        raise ValueError(f"{path} is a WebSocket, which cannot declare what it reports for billing")

    def mark(method: _F) -> _F:
        set_route(method, Route(path=path, is_websocket=is_websocket, health_check=health_check))
        if billing is not None:
            setattr(method, BILLING_ATTRIBUTE, billing)
        return method

    return mark


def realtime(
    path: str,
    *,
    buffering: int | None = None,
    session_timeout: float | None = None,
    input_modal: object = FROM_ANNOTATIONS,
    output_modal: object = FROM_ANNOTATIONS,
    max_batch_size: int = 1,
    content_type: str = "application/msgpack",
    encode_message: Callable[[object], bytes] | None = None,
    decode_message: Callable[[bytes], object] | None = None,
) -> Callable[[_F], _F]:
    """Serve the decorated App method for realtime sessions over a WebSocket.

    The annotations decide what streams: an `AsyncIterator` argument receives all inputs of a session, and an iterator
    result sends many outputs for one input; otherwise each input gets one output.

    Args:
        path: the path to serve it at, "/realtime" for `fal_client.realtime`.
        buffering: the most inputs to hold while the method works on one; beyond that the oldest is dropped. None drops
            none.
        session_timeout: seconds without an input after which the session ends.
        input_modal, output_modal: types of the messages, instead of the annotations; None leaves them unchecked.
        max_batch_size: the most inputs that one call gets, if several wait.
        content_type: media type of the messages, for the app's description.
        encode_message, decode_message: convert from and to Python values, instead of msgpack.

    Raises:
        ValueError: the path does not begin with "/", or the method already has a path.
    """
    if not path.startswith("/"):
        raise ValueError(f'the path of a realtime endpoint is {path!r}: begin it with "/"')
    how = Realtime(
        buffering=buffering,
        session_timeout=session_timeout,
        max_batch_size=max_batch_size,
        content_type=content_type,
        input_modal=input_modal,
        output_modal=output_modal,
        encode_message=encode_message,
        decode_message=decode_message,
    )

    def mark(method: _F) -> _F:
        set_route(method, Route(path=path, is_websocket=True, realtime=how))
        return method

    return mark


def set_route(method: Callable[..., object], route: Route) -> None:
    """Set a method's route.

    Raises:
        ValueError: the method already has one.
    """
    earlier = route_of(method)
    if earlier is not None:
        raise ValueError(f"{method.__name__} is at {earlier.path} already: an endpoint has one path")
    setattr(method, ROUTE_ATTRIBUTE, route)


def route_of(method: object) -> Route | None:
    """Return a method's route, or None if it is not an endpoint."""
    route = getattr(method, ROUTE_ATTRIBUTE, None)
    return route if isinstance(route, Route) else None
