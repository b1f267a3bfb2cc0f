"""A controller that answers `fal` with what a test gives it, over real gRPC, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest

from fal_grpc.v1 import (
    app_pb2,
    app_pb2_grpc,
    environment_pb2,
    environment_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    log_pb2,
    log_pb2_grpc,
    revision_pb2,
    revision_pb2_grpc,
    runner_pb2,
    runner_pb2_grpc,
    secret_pb2,
    secret_pb2_grpc,
)

SERVICES = (
    (app_pb2, app_pb2_grpc, "Apps"),
    (environment_pb2, environment_pb2_grpc, "Environments"),
    (key_pb2, key_pb2_grpc, "Keys"),
    (log_pb2, log_pb2_grpc, "Logs"),
    (revision_pb2, revision_pb2_grpc, "Revisions"),
    (runner_pb2, runner_pb2_grpc, "Runners"),
    (secret_pb2, secret_pb2_grpc, "Secrets"),
)


class Controller:
    """Answers by method name.

    Attributes:
        answers: method name -> what it answers: a message, a status to abort with and its details, or a function of the
            request (or its iterator) and the context.
        asked: every unary request, as (method name, request).
        metadata: of the last call.
        reached: for a test's own answer to set.
        gone: set when the other side of a stream has gone away.
    """

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.asked: list[tuple[str, object]] = []
        self.metadata: dict[str, str] = {}
        self.reached = threading.Event()
        self.gone = threading.Event()
        self.port = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        for module, stubs, name in SERVICES:
            servicer = getattr(stubs, f"{name}Servicer")()
            for method in module.DESCRIPTOR.services_by_name[name].methods:
                setattr(servicer, method.name, self._handler(method.name, stream=method.server_streaming))
            getattr(stubs, f"add_{name}Servicer_to_server")(servicer, self._server)

    def _handler(self, name: str, *, stream: bool) -> Callable[[object, grpc.ServicerContext], object]:
        def answer(request, context):
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
        """The only request to a method."""
        (found,) = [request for method, request in self.asked if method == name]
        return found

    def start(self) -> None:
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, and nothing of the machine's own settings."""
    import os

    for name in list(os.environ):
        if name.startswith(("FAL_", "ISOLATE_")) or name in {"NO_COLOR", "FORCE_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FAL_CONFIG_PATH", str(tmp_path / "config.toml"))
    return tmp_path


@pytest.fixture
def controller(monkeypatch) -> Iterator[Controller]:
    found = Controller()
    found.start()
    monkeypatch.setenv("FAL_GRPC_HOST", f"127.0.0.1:{found.port}")
    monkeypatch.setenv("FAL_KEY", "id:secret")
    yield found
    found.stop()
