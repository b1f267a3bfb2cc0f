"""Runs an app or function of this program in a runner. It is not deployed."""

from __future__ import annotations

import inspect
import queue
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fal.deploy.errors import UserFunctionError
    from fal_grpc.adapter.log import Log
    from fal_grpc.adapter.revision import BuildResult
    from fal_grpc.adapter.run import RunResult


class RemoteRun:
    """A run that can be cancelled."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._close: list[object] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` ended it."""
        return self._ended.is_set()

    def opened(self, client: object) -> None:
        """Set the connection that keeps the run alive."""
        self._close.append(client)
        if self.cancelled:
            self.cancel()

    def cancel(self) -> None:
        """End the run."""
        self._ended.set()
        while self._close:
            self._close.pop().close()  # type: ignore[attr-defined]  # a SyncServerlessClient


class SpawnInfo:
    """Handle of an app or function that runs in a runner.

    Attributes:
        future: its result or exception.
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
        """The result, once the run has ended."""
        return self.future.result()

    @property
    def url(self) -> str | None:
        """Its address, once known; None if it ended without one."""
        self._known.wait()
        return self._url

    @property
    def application(self) -> str:
        """The app's name, with its owner."""
        return urlsplit(self.url or "").path.strip("/")

    def saw(self, result: RunResult) -> None:
        """Process a message of the run."""
        for line in result.logs:
            self.logs.put(line)
        if result.service_urls is not None and self._url is None:
            self._url = result.service_urls.run
            self._known.set()

    def built(self, result: BuildResult) -> None:
        """Process a message of the build."""
        for line in result.logs:
            self.logs.put(line)

    def ended(self) -> None:
        """Mark the logs and the address as complete."""
        self._known.set()


def spawn(
    target: object,
    name: str,
    arguments: Sequence[object] = (),
    keywords: Mapping[str, object] | None = None,
) -> SpawnInfo:
    """Run an app or function of this program in a runner.

    Args:
        target: the class of the app, or the function of `fal.function`.
        name: its name in its file.
        arguments, keywords: the function's arguments.

    Raises:
        DeployError: it is not at the top level of a file.
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
    """Run a function in a runner; return a future of its result. See `spawn`."""
    return spawn(target, name, arguments, keywords).future


def call(target: object, name: str, arguments: Sequence[object], keywords: Mapping[str, object]) -> object:
    """Run a function in a runner and return its result. Show its output; see `spawn`."""
    from fal.api import SyncServerlessClient
    from fal.deploy import run
    from fal.deploy.errors import UserFunctionError

    def show(result: RunResult) -> None:
        _show(result.logs)
        if result.service_urls is not None:
            sys.stderr.write(f"Serving at {result.service_urls.run}\n")

    reference = _reference(target, name)
    with SyncServerlessClient() as client:
        try:
            return run(
                client,
                reference,
                arguments=arguments,
                keywords=keywords,
                result_handler=show,
                build_result_handler=lambda result: _show(result.logs),
            )
        except UserFunctionError as error:
            cause = error.__cause__ or _own_exception(target, error)
            if cause is None:
                raise
    raise cause


def _own_exception(target: object, error: UserFunctionError) -> Exception | None:
    """Return the function's own exception, or None. Its class must be in the function's file and take one text."""
    names = getattr(getattr(target, "raw_func", None), "__globals__", {})
    found = names.get(error.exception_type_name)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    try:
        made = found(error.exception_message or "")
    except TypeError:
        return None
    if error.traceback:
        made.add_note(f"In the runner:\n{error.traceback.rstrip()}")
    return made


def _show(lines: Iterable[Log]) -> None:
    for line in lines:
        if line.level.value not in ("TRACE", "DEBUG"):
            sys.stderr.write(f"{line.message}\n")
    sys.stderr.flush()


def _reference(target: object, name: str) -> tuple[str, str]:
    from fal.deploy.errors import DeployError

    _check_not_imported_now(target, name)
    file = inspect.getsourcefile(getattr(target, "raw_func", target))  # type: ignore[arg-type]
    if file is None or "." in name:
        raise DeployError(f"{name} is not at the top of a file, so it cannot be sent: move it there")
    return file, name


def _check_not_imported_now(target: object, name: str) -> None:
    """Raise an error if the target's file is being imported.

    The deploy and the runner import it, too, and would run the target again.
    """
    from fal.deploy.errors import DeployError

    names: Mapping[str, object] = getattr(getattr(target, "raw_func", None), "__globals__", {})
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals is names and frame.f_code.co_name == "<module>" and names.get("__name__") != "__main__":
            raise DeployError(
                f"{name} is run while its own file is imported, which its runner does too: put the call under "
                'if __name__ == "__main__":'
            )
        frame = frame.f_back
