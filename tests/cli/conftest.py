"""A gRPC controller that gives the test's answers and records requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from fal_grpc.compat import ISOLATE_SERVICE
from tests.support.contract import SERVICES


class Controller:
    """Answer by method name.

    Attributes:
        answers: method name -> a message, a status to abort with and its details, or a function of the request (or its
            iterator) and the context.
        asked: every unary request, as (method name, request).
        metadata: the metadata of the last call.
        reached: an event for a test's answer to set.
        gone: set when the client of a stream is gone.
    """

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.asked: list[tuple[str, object]] = []
        self.metadata: dict[str, str] = {}
        self.reached = threading.Event()
        self.gone = threading.Event()
        self.port = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        handlers: dict[str, grpc.RpcMethodHandler] = {}
        for service in SERVICES:
            found = {method.name: self._method(method) for method in service.methods}
            self._serve(service.full_name, found)
            handlers.update(found)
        # Clients call most methods by the name that every controller serves.
        self._serve(ISOLATE_SERVICE, handlers)

    def _serve(self, service: str, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _method(self, method: MethodDescriptor) -> grpc.RpcMethodHandler:
        sides = ("stream" if stream else "unary" for stream in (method.client_streaming, method.server_streaming))
        make = getattr(grpc, f"{'_'.join(sides)}_rpc_method_handler")
        return make(
            self._handler(method.name, stream=method.server_streaming),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    def _handler(self, name: str, *, stream: bool) -> Callable[[object, grpc.ServicerContext], object]:
        def answer(request, context) -> Any:
            self.metadata = dict(context.invocation_metadata())
            if hasattr(request, "DESCRIPTOR"):
                self.asked.append((name, request))
            given = self.answers.get(name, (grpc.StatusCode.UNIMPLEMENTED, f"no answer for {name}"))
            if isinstance(given, tuple):
                context.abort(*given)
            return given(request, context) if callable(given) else given

        def answer_stream(request, context):
            context.add_callback(self.gone.set)
            yield from answer(request, context)

        return answer_stream if stream else answer

    def request(self, name: str) -> object:
        """Return the only request to a method."""
        (found,) = [request for method, request in self.asked if method == name]
        return found

    def start(self) -> None:
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Provide an empty home without the machine's settings."""
    import os

    for name in list(os.environ):
        if name.startswith(("FAL_", "ISOLATE_")) or name in {"NO_COLOR", "FORCE_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FAL_CONFIG_PATH", str(tmp_path / "config.toml"))
    return tmp_path


class RestController:
    """Answer GET requests by their path without the query. Unknown paths get 404."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}

    def answer(self, path: str) -> tuple[int, object]:
        name = path.partition("?")[0]
        if name in self.answers:
            return 200, self.answers[name]
        return 404, {"detail": f"{name} not found"}


@pytest.fixture
def rest(monkeypatch) -> Iterator[RestController]:
    """Serve only a controller's REST paths."""
    found = RestController()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = found.answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("FAL_GRPC_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("FAL_KEY", "id:secret")
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def controller(monkeypatch) -> Iterator[Controller]:
    found = Controller()
    found.start()
    monkeypatch.setenv("FAL_GRPC_HOST", f"127.0.0.1:{found.port}")
    monkeypatch.setenv("FAL_KEY", "id:secret")
    yield found
    found.stop()
