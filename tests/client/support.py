"""A fake controller: real gRPC on loopback, and the test's answers. It has both names of each method."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from fal_grpc.aio import AsyncController
from fal_grpc.channel import ChannelOptions
from fal_grpc.controller import Controller
from fal_grpc.credentials import Credentials, KeyCredentials
from fal_grpc.target import parse_target
from tests.support.contract import SERVICES

KEY = KeyCredentials("key-id", "top-secret")
HANG_SECONDS = 30
"""Only a guard against hanging: no test waits this long."""


@dataclass
class Call:
    """A call that the controller received."""

    path: str
    requests: list[object]
    metadata: dict[str, object]
    time_remaining: float | None

    @property
    def request(self) -> object:
        (only,) = self.requests
        return only


@dataclass
class FakeController:
    """Answers each method with what `answers` holds for it.

    Attributes:
        answers: method name -> a message, a list of them for a stream, or a function of the request (or the iterator of
            requests) and the context.
        calls: what was received, in order.
        isolate_only: serve no fal.v1 names, and no methods that have only such names.
    """

    answers: dict[str, object] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    isolate_only: bool = False
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [call.path for call in self.calls]

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        shared: dict[str, grpc.RpcMethodHandler] = {}
        found = []
        for service in SERVICES:
            own = {
                method.name: self._handler(f"/{service.full_name}/{method.name}", method) for method in service.methods
            }
            if not self.isolate_only:
                found.append(grpc.method_handlers_generic_handler(service.full_name, own))
            for method in (
                () if service.name in ("Accounts", "Audit", "Drains", "Notices", "Requests") else service.methods
            ):
                if method.name not in ("GetRunner", "ListLogs", "ListNodes", "FollowLogs", "WatchRunners", "WatchApps"):
                    shared[method.name] = self._handler(f"/controller.IsolateController/{method.name}", method)
        return [*found, grpc.method_handlers_generic_handler("controller.IsolateController", shared)]

    def _handler(self, path: str, method) -> grpc.RpcMethodHandler:
        request_class, answer_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        def answer(given, context) -> Any:
            incoming: list[object] = []
            call = Call(path, incoming, dict(context.invocation_metadata()), context.time_remaining())
            self.calls.append(call)
            context.add_callback(self.cancelled.set)
            if not method.client_streaming:
                incoming.append(given)
                taken = given
            else:
                taken = _kept(given, incoming)
            if method.containing_service.name == "Execs" and method.name not in self.answers:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "this controller knows no such commands")
            found = self.answers.get(method.name, answer_class())
            return found(taken, context) if callable(found) else found

        def stream(given, context):
            found = answer(given, context)
            yield from (found if isinstance(found, list) or hasattr(found, "__next__") else [found])

        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            stream if method.server_streaming else answer,
            request_deserializer=request_class.FromString,
            response_serializer=answer_class.SerializeToString,
        )


def _kept(given: Iterator[object], incoming: list[object]) -> Iterator[object]:
    for request in given:
        incoming.append(request)
        yield request


@contextmanager
def serving(
    fake: FakeController, credentials: grpc.ServerCredentials | None = None
) -> Generator[FakeController, None, None]:
    """Serve on a free port of loopback."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), handlers=fake.handlers())
    if credentials is None:
        fake.port = server.add_insecure_port("127.0.0.1:0")
    else:
        fake.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield fake
    finally:
        server.stop(0).wait()


class Side:
    """Makes a call through one side of the client. It returns the result, or the whole stream as a list."""

    def __init__(self, name: str) -> None:
        self.name = name

    def call(
        self,
        host: str,
        method: str,
        *args: object,
        credentials: Credentials = KEY,
        options: ChannelOptions | None = None,
        **kwargs: object,
    ) -> object:
        target = parse_target(host)
        if self.name == "blocking":
            with Controller(target, credentials, options) as controller:
                found = getattr(controller, method)(*args, **kwargs)
                return list(found) if hasattr(found, "__next__") else found
        return asyncio.run(self._awaited(AsyncController(target, credentials, options), method, args, kwargs))

    @staticmethod
    async def _awaited(controller: AsyncController, method: str, args, kwargs) -> object:
        async with asyncio.timeout(HANG_SECONDS), controller:
            found = getattr(controller, method)(*args, **kwargs)
            if hasattr(found, "__anext__"):
                return [item async for item in found]
            return await found


def aborting(code: grpc.StatusCode, details: str = "no", *, times: int | None = None, then: object = None) -> Callable:
    """Return an answer that refuses, always or the first `times` times."""
    left = [times]

    def answer(request, context) -> Any:
        if left[0] is None or left[0] > 0:
            if left[0] is not None:
                left[0] -= 1
            context.abort(code, details)
        return then

    return answer
