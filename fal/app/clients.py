"""Calls the endpoints of an app by their methods' names."""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue
import sys
import threading
import time
import typing
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fal.app.endpoints import Route, route_of
from fal.app_http import authorization, open_async_client, open_client, require_httpx
from fal.exceptions import FalServerlessException

if TYPE_CHECKING:
    import httpx

    from fal.app.app import App
    from fal.app.spawning import RemoteRun, SpawnInfo
    from fal_grpc.adapter.log import Log

_STARTING = frozenset({404, 500, 502, 503, 504})
_HEALTH_SECONDS = 5.0  # httpx's own default


@dataclass(eq=False)
class AppClientError(FalServerlessException):
    """An app could not be called, or answered with an error.

    Attributes:
        message: what is wrong.
        status_code: the HTTP status of the response; 500 if there was none.
        headers: the headers of the response.
    """

    message: str
    status_code: int
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


class AppSpawnInfo:
    """Handle of an app that is served in a runner. `fal.App.spawn` returns it."""

    def __init__(self, info: SpawnInfo) -> None:
        self.info = info

    @property
    def url(self) -> str | None:
        """The app's address, once known; None if it ended without one."""
        return self.info.url

    @property
    def application(self) -> str:
        """The app's name, with its owner."""
        return self.info.application

    @property
    def logs(self) -> queue.Queue[Log]:
        """The app's log lines."""
        return self.info.logs

    @property
    def stream(self) -> RemoteRun:
        """The run: `stream.cancel()` ends it."""
        return self.info.stream

    @property
    def future(self) -> object:
        """A `concurrent.futures.Future` that completes when the run ends."""
        return self.info.future

    def wait(
        self,
        *,
        health_request_timeout: int = 30,
        startup_timeout: int = 60,
        health_check_interval: float = 0.5,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Wait until the app answers GET /health.

        Args:
            health_request_timeout: seconds that one response may take.
            startup_timeout: seconds to wait in total.
            health_check_interval: seconds between two requests.
            headers: headers of the requests; None means the header with FAL_KEY, if it is set.

        Raises:
            AppClientError: the app ended, refused, or did not start in time; the message says which and why.
        """
        require_httpx()
        import httpx

        url = self.url
        if url is None:
            raise AppClientError(f"The app ended before it was served: {self.info.future.exception()}", 500)
        end = time.monotonic() + startup_timeout
        sent = authorization() if headers is None else headers
        last = "it was not asked"
        with open_client(url, sent, health_request_timeout) as client:
            while time.monotonic() < end:
                if self.info.future.done():
                    raise AppClientError(f"The app ended while it started: {self.info.future.exception()}", 500)
                try:
                    answer = client.get(f"{url}/health")
                except httpx.HTTPError as error:
                    last = f"{type(error).__name__}: {error}"
                else:
                    if answer.is_success:
                        return
                    last = f"it answered {answer.status_code} {answer.text[:200]}"
                    if answer.status_code not in _STARTING:
                        raise AppClientError(f"GET {url}/health: {last}", answer.status_code, dict(answer.headers))
                time.sleep(health_check_interval)
        raise AppClientError(f"The app did not start within {startup_timeout} seconds: {last}", 500)


class EndpointClient:
    """Calls one endpoint; `client.greet(Input(name="you"))`, or `await client.greet.call_async(...)`.

    Args:
        url: the app's address.
        endpoint: the method.
        signature: its route.
        timeout: seconds that each step of a call may take; None means no limit.
        headers: headers of the calls.
    """

    def __init__(
        self,
        url: str,
        endpoint: Callable[..., object],
        signature: Route,
        timeout: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.endpoint = endpoint
        self.signature = signature
        self.timeout = timeout
        self.headers = dict(headers or {})
        self.return_type: type | None = typing.get_type_hints(endpoint).get("return")

    def __call__(self, data: object) -> Any:  # noqa: ANN401 - what the endpoint is annotated with
        """Call the endpoint with a model or a mapping. Return its response in the annotated type.

        Raises:
            AppClientError: it answered with an error, or cannot be reached.
        """
        with self._failing(), open_client(self.url, self.headers, self.timeout) as client:
            return self._answered(client.post(self._address, json=_body(data)))

    async def call_async(self, data: object) -> Any:  # noqa: ANN401 - as above
        """`__call__` for asyncio."""
        with self._failing():
            async with open_async_client(self.url, self.headers, self.timeout) as client:
                return self._answered(await client.post(self._address, json=_body(data)))

    @property
    def _address(self) -> str:
        return self.url.rstrip("/") + self.signature.path

    @contextmanager
    def _failing(self) -> Generator[None]:
        require_httpx()
        import httpx

        try:
            yield
        except httpx.HTTPError as error:
            raise AppClientError(f"POST {self._address}: {type(error).__name__}: {error}", 500) from error

    def _answered(self, answer: httpx.Response) -> Any:  # noqa: ANN401 - as above
        if not answer.is_success:
            said = f"POST {self._address}: {answer.status_code} {answer.text}"
            raise AppClientError(said, answer.status_code, dict(answer.headers))
        found: object = answer.json()
        if self.return_type is None or self.return_type is type(None):
            return found
        from pydantic import TypeAdapter

        return cast("object", TypeAdapter(self.return_type).validate_python(found))


class AppClient:
    """Calls an app's endpoints by their methods' names.

        with AppClient.connect(Greeter) as client:
            client.greet(Input(name="you"))

    Args:
        cls: the app's class.
        url: the app's address, or an app id such as "owner/my-app", optionally followed by a path.
        timeout: seconds that each step of a call may take; None means no limit.
    """

    def __init__(self, cls: type[App], url: str, timeout: int | None = None) -> None:
        from fal.apps import address

        self.cls = cls
        self.url = (url if "://" in url else address(url)).rstrip("/")
        owner, _, name = self.url.rpartition("/")
        self.application = f"{owner.rpartition('/')[2]}/{name}"
        self._headers = authorization()
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            route = route_of(method)
            if route is not None:
                setattr(self, name, EndpointClient(self.url, method, route, timeout, self._headers))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> EndpointClient: ...

    @classmethod
    @contextmanager
    def connect(
        cls,
        app_cls: type[App],
        *,
        health_request_timeout: int = 30,
        startup_timeout: int = 60,
        health_check_interval: float = 0.5,
    ) -> Generator[AppClient]:
        """Serve an app in a runner for the duration of the block. Its log is on standard error.

        If this program has neither a controller nor a key, the app is served in this process instead, with the
        installed packages.

        Args:
            app_cls: the app's class.
            health_request_timeout, startup_timeout, health_check_interval: as in `AppSpawnInfo.wait`.

        Raises:
            AppClientError: it did not start.
            MissingCredentialsError: a controller is configured, but no key.
        """
        if not _has_controller():
            with _served_here(app_cls, startup_timeout) as url:
                yield cls(app_cls, url)
            return
        info = app_cls.spawn()
        ended = threading.Event()
        printing = threading.Thread(target=_print_logs, args=(info.logs, ended), daemon=True)
        printing.start()
        try:
            info.wait(
                health_request_timeout=health_request_timeout,
                startup_timeout=startup_timeout,
                health_check_interval=health_check_interval,
            )
            assert info.url is not None
            yield cls(app_cls, info.url)
        finally:
            info.stream.cancel()
            ended.set()
            printing.join()

    def health(self) -> object:
        """Return the response of GET /health.

        Raises:
            AppClientError: it is an error.
        """
        with open_client(self.url, self._headers, _HEALTH_SECONDS) as client:
            answer = client.get(f"{self.url}/health")
        if not answer.is_success:
            raise AppClientError(f"GET {self.url}/health: {answer.status_code} {answer.text}", answer.status_code)
        found: object = answer.json()
        return found

    async def health_async(self) -> object:
        """`health` for asyncio."""
        return await asyncio.to_thread(functools.partial(AppClient.health, self))


def _has_controller() -> bool:
    """Return whether variables, profile or login configure a controller or a key."""
    from fal.settings import DEFAULT_SOURCE, NO_SOURCE, resolve

    sources = resolve(needs_key=False).sources
    if sources["credentials"] != NO_SOURCE:
        return True
    if sources["host"] != DEFAULT_SOURCE:
        resolve()  # raises an error that says how to get a key
    return False


@contextmanager
def _served_here(app_cls: type[App], startup_timeout: int) -> Generator[str]:
    from fal.testing.local import serve_here

    here = ExitStack()
    _say(f"No controller is set: {app_cls.__name__} is served in this process.")
    try:
        url = here.enter_context(serve_here(app_cls, startup_seconds=startup_timeout))
    except Exception as error:
        raise AppClientError(f"The app did not start: {type(error).__name__}: {error}", 500) from error
    with here:
        yield url


def _body(data: object) -> object:
    dump = getattr(data, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    return dict(data) if isinstance(data, Mapping) else data


def _print_logs(logs: queue.Queue[Log], ended: threading.Event) -> None:
    while not (ended.is_set() and logs.empty()):
        try:
            line = logs.get(timeout=0.1)
        except queue.Empty:
            continue
        _say(line.message)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - `connect` is asked to
