"""HTTP calls to a controller.

They use httpx, imported at the first call: commands that only speak gRPC never load it.
"""

# Generated from fal/http_aio.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fal.http_messages import (
    MAX_REDIRECTS,
    ClientKind,
    EventParser,
    HttpRequest,
    HttpResponse,
    ServerSentEvent,
    client_arguments,
    headers_of,
    kind_of,
    length_of,
    redirect_of,
    status_error,
    timeout_of,
    translated,
    without_query,
)
from fal_grpc.errors import UnavailableError

if TYPE_CHECKING:
    import httpx

    from fal_grpc.channel import ChannelOptions


class HttpStream:
    """A response whose body has not been read yet.

    Attributes:
        length: bytes of the body, if the server says it.
    """

    def __init__(self, response: httpx.Response, options: ChannelOptions) -> None:
        self._response = response
        self._options = options
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.length = length_of(response)

    def chunks(self) -> Generator[bytes, None, None]:
        """Yield the body as it arrives."""
        with translated(str(self._response.url), self._options):
            yield from self._response.iter_bytes()

    def events(self) -> Generator[ServerSentEvent, None, None]:
        """Yield the events of a text/event-stream as they arrive."""
        parser = EventParser()
        for chunk in self.chunks():
            yield from parser.feed(chunk)


class HttpClient:
    """Makes HTTP calls. It can be used from several threads.

    It follows redirects only within one scheme, host and port, because the headers carry credentials. It uses the
    environment's proxies, except for this machine's own addresses.

    Args:
        options: which certificates to trust, and what starts the controller.
        keep_connections: whether connections stay open between calls; then the caller must call `close`.
    """

    def __init__(self, options: ChannelOptions, *, keep_connections: bool = False) -> None:
        self._options = options
        self._keep = keep_connections
        self._clients: dict[ClientKind, httpx.Client] = {}

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request and read the whole response.

        Raises:
            CallError: the response is an error (see `status_error`), or the server cannot be reached.
        """
        with self.stream(request) as stream:
            content = b"".join(list(stream.chunks()))
        return HttpResponse(status=stream.status, headers=stream.headers, content=content, url=request.url)

    @contextmanager
    def stream(self, request: HttpRequest) -> Generator[HttpStream, None, None]:
        """Send a request; read the response's body inside the `with` block.

        Raises:
            CallError: see `send`.
        """
        client, url = self._client(request.url), request.url
        for _ in range(MAX_REDIRECTS + 1):
            with (
                translated(url, self._options),
                client.stream(
                    request.method,
                    url,
                    content=request.content,
                    headers=headers_of(request),
                    timeout=timeout_of(request.timeout_seconds),
                ) as response,
            ):
                target = redirect_of(response, url)
                if target is None:
                    if response.status_code >= 300:
                        raise status_error(response.status_code, response.headers, response.read(), url)
                    yield HttpStream(response, self._options)
                    return
            url = target
        raise UnavailableError(f"Could not reach {without_query(request.url)}: it redirects in a loop.")

    def close(self) -> None:
        """Close the kept connections."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _client(self, url: str) -> httpx.Client:
        kind = kind_of(url)
        if kind not in self._clients:
            import httpx

            self._clients[kind] = httpx.Client(
                **client_arguments(url, self._options),
                limits=httpx.Limits(max_keepalive_connections=None if self._keep else 0),
            )
        return self._clients[kind]
