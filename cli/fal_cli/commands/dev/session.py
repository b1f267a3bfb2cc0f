"""The life of `fal dev`. It serves an app, watches its files, and moves to each edit once it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fal.api import FalError, NotFoundError, name_in_environment
from fal.deploy.deployment_aio import build, deploy_built
from fal.deploy.errors import DeployError
from fal.deploy.preparation import PreparedApp, prepare
from fal.deploy.project import resolve_reference
from fal_cli.commands.dev.view import View
from fal_cli.commands.dev.watching import Watcher, sources_below
from fal_cli.exit_codes import CommandError
from fal_cli.presentation.progress import BuildProgress

if TYPE_CHECKING:
    from fal.api import AsyncServerlessClient, RegisterResult
    from fal.deploy import DeploymentResult

T = TypeVar("T")
SUFFIX = "-dev"
_MARK = "fal-dev"
"""The annotation that marks a revision as one of `fal dev`."""
_LOOK_SECONDS = 0.05
_END_SECONDS = 15.0
_LAST_LINES_SECONDS = 0.2
_READY = frozenset({"IDLE", "RUNNING"})


class NotReadyError(DeployError):
    """The first version of an app did not become ready. The message says why."""


class DevSession:
    """Serves an app from its files under a name of its own.

    Args:
        client: the controller to serve it on.
        app_ref: as for `fal deploy`.
        app_name: the name to serve it under; None adds "-dev" to the app's own.
        auth: who may call it.
        environment_name: the environment to serve it in; None means "main".
        view: shows the progress.
    """

    def __init__(
        self,
        client: AsyncServerlessClient,
        app_ref: str | None,
        *,
        app_name: str | None,
        auth: str,
        environment_name: str | None,
        view: View,
    ) -> None:
        self._client = client
        self._app_ref = app_ref
        self._app_name = app_name
        self._auth = auth
        self._environment = environment_name
        self._view = view
        self._watcher = Watcher()
        self._name: str | None = None
        self._revisions: list[str] = []
        self._served: PreparedApp | None = None
        self._built: PreparedApp | None = None
        self._edited: dict[Path, None] = {}
        self._following: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until this is cancelled; then remove everything."""
        try:
            await self._serve()
        finally:
            await self._end()

    async def _serve(self) -> None:
        self._watch(None)
        started = time.monotonic()
        while True:
            attempt = asyncio.create_task(self._attempt(started))
            edited = asyncio.create_task(self._watcher.changed())
            try:
                # If the files change before the version is ready, it is not worth waiting for.
                await asyncio.wait({attempt, edited}, return_when=asyncio.FIRST_COMPLETED)
                if attempt.done():
                    await attempt
                paths = await edited
            finally:
                attempt.cancel()
                edited.cancel()
                await asyncio.gather(attempt, edited, return_exceptions=True)
            if not self._edited:
                started = time.monotonic()
            self._edited.update(dict.fromkeys(paths))

    async def _attempt(self, started: float) -> None:
        # An editor may still be writing: prepare the app already, but report and send nothing before the files are
        # stable.
        found = await _in_thread(self._prepared)
        if not await self._watcher.is_complete():
            return
        if self._edited:
            self._view.edited(list(self._edited))
            self._edited.clear()
        if isinstance(found, DeployError):
            self._watch(None)
            self._view.error(str(found), served=self._served is not None)
            return
        self._watch(found)
        app = self._adapted(found)
        if self._served is not None:  # otherwise each save would wait for the failed builds before it
            app = app.served_as(self._served.serving)
        if self._served is not None and _same(app, self._served):
            self._view.beside("nothing has changed")
            return
        try:
            await self._move_to(app, started)
        except FalError as error:
            # Its last lines say more than the reason, and arrive separately.
            await asyncio.sleep(_LAST_LINES_SECONDS)
            self._view.error(str(error), served=self._served is not None)

    def _prepared(self) -> PreparedApp | DeployError:
        """Return the app in its files, or why they cannot be deployed."""
        try:
            return prepare(self._app_ref, app_name=self._app_name, auth=self._auth)
        except DeployError as error:
            return error

    def _adapted(self, app: PreparedApp) -> PreparedApp:
        """Return the app under its development name, with a runner that stays."""
        if app.exposed_port is None:
            raise CommandError(
                f"{app.display_name} serves nothing: `fal run {self._app_ref or 'FILE.py::NAME'}` calls a function"
            )
        name = app.app_name if self._app_name else f"{app.app_name}{SUFFIX}"
        if self._name is not None and name != self._name:
            raise CommandError(f"the app's name has become {name!r}: start `fal dev` again")
        least = app.options.get("min_concurrency")
        kept = {"min_concurrency": max(1, least if isinstance(least, int) else 0)}
        return replace(app, app_name=name, options={**app.options, **kept})

    async def _move_to(self, app: PreparedApp, started: float) -> None:
        if self._name is None:
            await self._claim(app.app_name)
        first = self._served is None
        earlier, self._built = self._built, None  # after a failure everything is checked again
        with BuildProgress() as progress:
            built = await build(
                self._client, app, environment_name=self._environment, built=earlier, handler=progress.show
            )
            result = await deploy_built(
                self._client,
                built,
                strategy="recreate" if first else "rolling",
                reset_scale=True,
                environment_name=self._environment,
                notes={"annotations": {_MARK: _holder()}},
                result_handler=self._registered,
            )
        self._register(result.revision)
        if first:
            await self._until_ready(result)
        self._built = built
        self._served = app.served_as(result.serving)
        seconds = time.monotonic() - started
        if first:
            self._view.serving(result, seconds, len(self._watcher))
        else:
            self._view.good(f"ready after {seconds:.2f} s")

    async def _claim(self, name: str) -> None:
        """Check that no deployed app has the name."""
        apps = await self._client.apps.list(environment_name=self._environment)
        holder = next((app for app in apps if app.alias in (name, name_in_environment(name, self._environment))), None)
        if holder is not None:
            revisions = await self._client.apps.list_rev(name, environment_name=self._environment)
            current = next((found for found in revisions if found.application_id == holder.revision), None)
            mark = current.annotations.get(_MARK) if current is not None else None
            if mark is None:
                raise CommandError(
                    f"an app {name!r} is deployed already, and `fal dev` would replace it: choose a name by --app-name"
                )
            if _is_alive(mark):
                raise CommandError(f"another `fal dev` ({mark}) serves {name}: choose a name by --app-name")
            self._revisions += [found.application_id for found in revisions if _MARK in found.annotations]
        self._name = name

    def _registered(self, found: RegisterResult) -> None:
        if found.registered is not None:
            self._register(found.registered.application_id)

    def _register(self, revision: str) -> None:
        if revision in self._revisions:
            return
        self._revisions.append(revision)
        if self._following is None and self._name is not None:
            self._following = asyncio.create_task(self._follow(self._name))

    async def _follow(self, name: str) -> None:
        """Show the app's lines until this is cancelled."""
        since = datetime.now(UTC) - timedelta(seconds=1)
        try:
            async for entry in self._client.apps.logs(
                name, follow=True, since=since, environment_name=self._environment
            ):
                if entry.revision in self._revisions:
                    self._view.line(entry)
        except FalError as error:
            self._view.beside(f"The app's lines cannot be shown: {error}")

    async def _until_ready(self, result: DeploymentResult) -> None:
        """Wait for the first runner. A deploy without an earlier revision does not.

        Raises:
            NotReadyError: it failed to start.
        """
        while True:
            runners = await self._client.apps.runners(result.app_name, environment_name=self._environment)
            mine = [runner for runner in runners if runner.revision == result.revision]
            if any(runner.state.value in _READY for runner in mine):
                return
            failed = next((runner for runner in mine if runner.state.value == "CRASH_BACKOFF"), None)
            if failed is not None:
                raise NotReadyError(f"{result.app_name} did not start: {failed.state_reason}")
            await asyncio.sleep(_LOOK_SECONDS)

    def _watch(self, app: PreparedApp | None) -> None:
        """Watch the files of an app. While it cannot be loaded, watch those it may consist of."""
        if app is not None:
            code = [path for part in (app.function, app.setup) if part is not None for path in part.paths]
            self._watcher.watch({*code, *(file.path for file in app.files), *_project_files()})
            return
        try:
            path = resolve_reference(self._app_ref).path
        except DeployError:
            path = None
        near = sources_below(path.parent if path is not None else Path.cwd())
        self._watcher.watch({*([path] if path is not None else []), *near, *self._watcher.paths, *_project_files()})

    async def _end(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._name is None:
            return
        name, self._name = self._name, None
        try:
            await self._client.apps.delete(name, environment_name=self._environment)
            with contextlib.suppress(TimeoutError):
                await self._until_gone(name)
            for revision in self._revisions:
                with contextlib.suppress(NotFoundError):
                    await self._client.apps.delete_rev(revision)
        except FalError as error:
            self._view.left(name, str(error))
        else:
            self._view.beside(f"{name} has ended.")

    async def _until_gone(self, name: str) -> None:
        """Wait until its runners have ended.

        Raises:
            TimeoutError: they still finish requests.
        """
        async with asyncio.timeout(_END_SECONDS):
            while True:
                runners = await self._client.runners.list()
                if not any(runner.alias in (name, name_in_environment(name, self._environment)) for runner in runners):
                    return
                await asyncio.sleep(_LOOK_SECONDS)


async def _in_thread(call: Callable[[], T]) -> T:
    """Call in a thread that cannot keep this process from ending. An app's file may do anything."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error it is the result

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is waited for
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=work, daemon=True).start()
    return await done


def _same(one: PreparedApp, other: PreparedApp) -> bool:
    """Return whether a runner cannot tell two apps apart."""

    def key(app: PreparedApp) -> tuple[object, ...]:
        codes = tuple(part.bundle for part in (app.function, app.setup) if part is not None)
        return codes, tuple((file.relative_path, file.hash) for file in app.files), _plain(app.options)

    return key(one) == key(other)


def _plain(options: Mapping[str, object]) -> str:
    return repr(sorted((name, repr(value)) for name, value in options.items()))


def _project_files() -> list[Path]:
    """Return the nearest pyproject.toml, here or above."""
    places = (directory / "pyproject.toml" for directory in (Path.cwd(), *Path.cwd().parents))
    return [path for path in places if path.is_file()][:1]


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_alive(mark: str) -> bool:
    """Return whether the process of a mark runs. It is checked as far as possible here."""
    host, _, pid = mark.rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and Path(f"/proc/{pid}").exists()
