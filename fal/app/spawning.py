"""Runs an app or a function of this program in a runner, without deploying it."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fal_grpc.adapter.log import Log
    from fal_grpc.adapter.revision import BuildResult
    from fal_grpc.adapter.run import RunResult


class RemoteRun:
    """A run that can be ended."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._close: list[object] = []

    @property
    def cancelled(self) -> bool:
        """Whether it was ended by `cancel`."""
        return self._ended.is_set()

    def opened(self, client: object) -> None:
        """Remember the connection that the run lives by."""
        self._close.append(client)
        if self.cancelled:
            self.cancel()

    def cancel(self) -> None:
        """End the run."""
        self._ended.set()
        while self._close:
            self._close.pop().close()  # type: ignore[attr-defined]  # a SyncServerlessClient


class SpawnInfo:
    """What is known of something that runs in a runner.

    Attributes:
        future: its result, or what it raised.
        logs: its log lines, and those of the build of its environment.
        stream: `stream.cancel()` ends it.
    """

    def __init__(self) -> None:
        self.future: Future[object] = Future()
        self.logs: queue.Queue[Log] = queue.Queue()
        self.stream = RemoteRun()
        self._url: str | None = None
        self._known = threading.Event()

    @property
    def return_value(self) -> object:
        """The result, once it has ended."""
        return self.future.result()

    @property
    def url(self) -> str | None:
        """The address that it is served at, once that is known; None if it ended without one."""
        self._known.wait()
        return self._url

    @property
    def application(self) -> str:
        """The name of what is served, with its owner."""
        return urlsplit(self.url or "").path.strip("/")

    def saw(self, result: RunResult) -> None:
        """Take in a message of the run."""
        for line in result.logs:
            self.logs.put(line)
        if result.service_urls is not None and self._url is None:
            self._url = result.service_urls.run
            self._known.set()

    def built(self, result: BuildResult) -> None:
        """Take in a message of the build of its environment."""
        for line in result.logs:
            self.logs.put(line)

    def ended(self) -> None:
        """Say that nothing more comes."""
        self._known.set()


def spawn(
    target: object,
    name: str,
    arguments: Sequence[object] = (),
    keywords: Mapping[str, object] | None = None,
) -> SpawnInfo:
    """Run something of this program in a runner.

    Args:
        target: the class of the app, or the function of `fal.function`.
        name: its name in its file.
        arguments, keywords: of the function.

    Raises:
        DeployError: it is not at the top of a file.
    """
    info = SpawnInfo()
    reference = _reference(target, name)

    def work() -> None:
        from fal.api import SyncServerlessClient
        from fal.deploy import run

        try:
            with SyncServerlessClient() as client:
                info.stream.opened(client)
                result = run(
                    client,
                    reference,
                    arguments=arguments,
                    keywords=keywords,
                    result_handler=info.saw,
                    build_result_handler=info.built,
                )
        except Exception as error:  # noqa: BLE001 - for whoever asks the future
            info.future.set_exception(CancelledError() if info.stream.cancelled else error)
        else:
            info.future.set_result(result)
        finally:
            info.ended()

    threading.Thread(target=work, name=f"fal-{name}", daemon=True).start()
    return info


def submit(target: object, name: str, arguments: Sequence[object], keywords: Mapping[str, object]) -> Future[object]:
    """Run a function in a runner, and return its result once it has ended; see `spawn`."""
    return spawn(target, name, arguments, keywords).future


def _reference(target: object, name: str) -> tuple[str, str]:
    from fal.deploy.errors import DeployError

    file = inspect.getsourcefile(getattr(target, "raw_func", target))  # type: ignore[arg-type]
    if file is None or "." in name:
        raise DeployError(f"{name} is not at the top of a file, so it cannot be sent: move it there")
    return file, name
