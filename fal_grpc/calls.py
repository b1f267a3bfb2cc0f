"""Makes blocking calls. Opens the channel when needed, sets deadline and credentials, and translates errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from fal_grpc.call_errors import CallErrors
from fal_grpc.channel import ChannelOptions, open_channel
from fal_grpc.compat import renamed
from fal_grpc.credentials import Credentials
from fal_grpc.errors import RpcFailure
from fal_grpc.stubs import Stubs
from fal_grpc.target import Target

if TYPE_CHECKING:
    import grpc


Q = TypeVar("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
S = TypeVar("S")


class Cancellable(Protocol):
    """A call in flight."""

    def cancel(self) -> object: ...


C = TypeVar("C", bound=Cancellable)


class ResponseStream(Protocol[R_co]):
    """A streaming call in flight."""

    def __iter__(self) -> Iterator[R_co]: ...
    def cancel(self) -> object: ...


class Calls(Stubs, CallErrors):
    """Makes the calls of one controller over one channel. It can be used from several threads."""

    def __init__(self, target: Target, credentials: Credentials, options: ChannelOptions) -> None:
        CallErrors.__init__(self, target, options)
        self._credentials = credentials
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: dict[object, object] = {}

    def _stub(self, make: Callable[[grpc.Channel], S]) -> S:
        """Return the stub of a service, opening the channel at first use.

        Raises:
            ClientClosedError: `close` was called.
            ConfigError: credentials or certificates do not fit the target.
        """
        with self._lock:
            if self._closed:
                self._refuse()
            if self._channel is None:
                self._channel = open_channel(self.target, self._credentials, self.options)
            if make not in self._stubs:
                isolate = self.options.wire == "isolate"
                self._stubs[make] = make(renamed(self._channel) if isolate else self._channel)
            return cast("S", self._stubs[make])

    def close(self) -> None:
        """Close the channel and cancel the calls in flight. A second close does nothing."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
            self._stubs.clear()
        if channel is not None:
            channel.close()

    def unary(
        self, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, *, deadline_seconds: float | None = None
    ) -> R:
        """Make a unary call; without a deadline it uses the channel's."""
        seconds = self.options.deadline_seconds if deadline_seconds is None else deadline_seconds
        with self.translated(method):
            return method(request, timeout=seconds, metadata=self._credentials.metadata())

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Q, R], request: Q, convert: Callable[[R], T]
    ) -> Generator[T, None, None]:
        """Make a streaming call. Closing the generator cancels the call."""
        with self.translated(method):
            call = _started(lambda: method(request, metadata=self._credentials.metadata()))
            try:
                for message in call:
                    yield convert(message)
            finally:
                call.cancel()

    def open(self, method: grpc.UnaryStreamMultiCallable[Q, R], request: Q) -> ResponseStream[R]:
        """Open a server-streaming call, whose reader translates errors."""
        return _started(lambda: method(request, metadata=self._credentials.metadata()))

    def upload(self, method: grpc.StreamUnaryMultiCallable[Q, R], requests: Iterator[Q]) -> grpc.Future[R]:
        """Open a client-streaming call, which translates no errors."""
        return _started(lambda: method.future(requests, metadata=self._credentials.metadata()))

    def session(
        self,
        method: grpc.StreamStreamMultiCallable[Q, R],
        requests: Iterator[Q],
        *,
        timeout_seconds: float | None,
    ) -> ResponseStream[R]:
        """Open a bidirectional call, whose reader translates errors."""
        return _started(lambda: method(requests, timeout=timeout_seconds, metadata=self._credentials.metadata()))

    @contextmanager
    def translated(self, method: object) -> Generator[None, None, None]:
        """Raise the client's own error for gRPC's."""
        import grpc

        try:
            yield
        except grpc.RpcError as failure:
            raise self.error(cast("RpcFailure", failure), method) from None
        except ValueError as error:
            # gRPC raises this for a call on a channel that another thread has closed.
            if self._closed and "closed channel" in str(error):
                self._refuse()
            raise


def _started(start: Callable[[], C]) -> C:
    """Start a call in a thread, which Ctrl-C does not interrupt.

    If Ctrl-C interrupted gRPC there, nobody could cancel the call, and closing the channel would wait for it forever.
    """
    if threading.current_thread() is not threading.main_thread():
        return start()
    from concurrent.futures import Future

    future: Future[C] = Future()

    def run() -> None:
        try:
            future.set_result(start())
        except BaseException as error:  # noqa: BLE001  # raised below
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="fal-call", daemon=True).start()
        return future.result()
    except BaseException:
        future.add_done_callback(lambda done: done.exception() or done.result().cancel())
        raise
