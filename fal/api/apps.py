"""`client.apps`: the apps, their revisions, their scaling and their runners."""

# Generated from fal/api/aio/apps.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fal.api import log_reading, watch_reading
from fal.api.logs import log_query
from fal.api.watches import WatchedApps, filtered
from fal_grpc.adapter.app import AliasInfo, AuthMode, DeploymentStrategy
from fal_grpc.adapter.app import app_name as checked_name
from fal_grpc.adapter.log import LogEntry, LogOrigin
from fal_grpc.adapter.runner import RunnerInfo, RunnerState, parse_states
from fal_grpc.adapter.scaling import AppExplanation, AppSimulation
from fal_grpc.adapter.values import optional_text, text
from fal_grpc.errors import NotFoundError

if TYPE_CHECKING:
    from fal.api.opener import Opener
    from fal.gpus import GpuUsage
    from fal_grpc.adapter.changes import Changes
    from fal_grpc.adapter.revision import ApplicationInfo
    from fal_grpc.controller import Controller


class AppsNamespace:
    """The apps of a controller; `fal apps` on the command line. Use it as `client.apps`.

    Example:
        with SyncServerlessClient() as client:
            for app in client.apps.list():
                print(app.alias, app.active_runners)
            client.apps.scale("my-app", max_concurrency=10)
    """

    def __init__(self, client: Opener) -> None:
        self.client = client

    def list(self, *, filter: str | None = None, environment_name: str | None = None) -> list[AliasInfo]:  # noqa: A002
        """List the apps of an environment.

        Args:
            filter: only apps whose name contains this text.
            environment_name: the environment; None means the default one.
        """
        wanted = optional_text("filter", filter)
        controller = self.client.controller()
        return filtered(controller.list_aliases(environment_name=environment_name), wanted)

    def watch(
        self,
        *,
        filter: str | None = None,  # noqa: A002
        environment_name: str | None = None,
    ) -> Generator[builtins.list[AliasInfo], None, None]:
        """Yield the list of apps at each change. It is also yielded about every two seconds.

        If the controller is unreachable for a while, it continues with the list at that time. Close it to stop.

        Args:
            filter: only apps whose name contains this text.
            environment_name: the environment; None means the default one.
        """

        wanted = optional_text("filter", filter)

        def stream(controller: Controller, version: str) -> Generator[Changes[AliasInfo], None, None]:
            return controller.watch_apps(environment_name=environment_name, version=version)

        def fetch(controller: Controller) -> builtins.list[AliasInfo]:
            return filtered(controller.list_aliases(environment_name=environment_name), wanted)

        return watch_reading.read(self.client, WatchedApps(wanted), stream, fetch)

    def runners(
        self,
        app_name: str,
        *,
        since: datetime | None = None,
        state: Sequence[RunnerState | str] | None = None,
        environment_name: str | None = None,
    ) -> builtins.list[RunnerInfo]:
        """List the runners of one app.

        Args:
            app_name: the app.
            since: also list those that ended at or after this time; a naive one is local time.
            state: only those in one of these states, such as ["running", "idle"]; None or ["all"] means any.
            environment_name: the environment; None means the default one.
        """
        wanted = parse_states(state)
        controller = self.client.controller()
        found = controller.list_alias_runners(app_name, since=since, environment_name=environment_name)
        return found if wanted is None else [runner for runner in found if runner.state in wanted]

    def scale(
        self,
        app_name: str,
        *,
        keep_alive: int | None = None,
        max_multiplexing: int | None = None,
        max_concurrency: int | None = None,
        min_concurrency: int | None = None,
        concurrency_buffer: int | None = None,
        concurrency_buffer_perc: int | None = None,
        scaling_delay: int | None = None,
        request_timeout: int | None = None,
        request_start_timeout: int | None = None,
        startup_timeout: int | None = None,
        machine_types: builtins.list[str] | None = None,
        regions: builtins.list[str] | None = None,
        environment_name: str | None = None,
    ) -> AliasInfo:
        """Change how an app scales. None or an empty list leaves a setting unchanged.

        Args:
            app_name: the app.
            keep_alive: seconds to keep a runner without requests.
            max_multiplexing: the most concurrent requests on one runner.
            max_concurrency: the most runners.
            min_concurrency: the fewest runners, even without any request.
            concurrency_buffer: runners to keep above what the load needs.
            concurrency_buffer_perc: the same as a percentage; the greater of the two counts.
            scaling_delay: seconds that a request waits before it may start another runner.
            request_timeout: seconds until a request is cut off.
            request_start_timeout: seconds that a request may wait for a runner; 0 removes the limit.
            startup_timeout: seconds that a runner has to become ready.
            machine_types: acceptable types, the preferred one first.
            regions: acceptable regions; [""] means any.
            environment_name: the environment; None means the default one.

        Returns:
            The app after the change.
        """
        controller = self.client.controller()
        return controller.update_application(
            app_name,
            keep_alive=keep_alive,
            max_multiplexing=max_multiplexing,
            max_concurrency=max_concurrency,
            min_concurrency=min_concurrency,
            concurrency_buffer=concurrency_buffer,
            concurrency_buffer_perc=concurrency_buffer_perc,
            scaling_delay=scaling_delay,
            request_timeout=request_timeout,
            request_start_timeout=request_start_timeout,
            startup_timeout=startup_timeout,
            machine_types=machine_types,
            regions=regions,
            environment_name=environment_name,
        )

    def rollout(self, app_name: str, *, force: bool = False, environment_name: str | None = None) -> None:
        """Replace an app's runners with new ones of the same revision. They are replaced one after another.

        Args:
            app_name: the app.
            force: replace all at once.
            environment_name: the environment; None means the default one.
        """
        controller = self.client.controller()
        controller.rollout_application(app_name, force=force, environment_name=environment_name)

    def logs(
        self,
        app_name: str,
        *,
        follow: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
        lines: int | None = None,
        oldest: bool = False,
        sources: Sequence[LogOrigin | str] = (),
        request_id: str | None = None,
        environment_name: str | None = None,
        on_progress: Callable[[datetime], None] | None = None,
    ) -> Generator[LogEntry, None, None]:
        """Read an app's log lines from all runners, past and present. They are merged by time.

        Args:
            app_name: the app.
            follow: continue with lines as they are written, including those of runners that start later, without end.
                If the controller is unreachable for a while, it resumes without a gap and repeats no line.
            since: only lines at or after this time; None means all, or with follow those of the last minute. This and
                `until` are local time if naive.
            until: only lines before this time; not with follow.
            search: only lines that contain this text, ignoring case.
            lines: at most this many, the newest ones; with follow, they come before the new lines.
            oldest: with `lines`, the oldest ones instead; not with follow.
            sources: only lines from these: "build", "system", "stdout", "stderr"; empty means all.
            request_id: only lines written for this request.
            environment_name: the environment; None means the default one.
            on_progress: called repeatedly with the time that a search through stored lines has reached.

        Returns:
            The lines, oldest first; each names its runner. Close it (or break out of the loop and drop it) to stop.

        Raises:
            NotFoundError: neither the app nor any line of it exists.
            UnimplementedError: the controller only has lines of single runners.
        """
        query = log_query(
            app=checked_name(app_name),
            environment_name=environment_name,
            follow=follow,
            since=since,
            until=until,
            search=search,
            lines=lines,
            oldest=oldest,
            sources=sources,
            request_id=request_id,
        )
        return log_reading.read(self.client, query, follow=follow, on_progress=on_progress)

    def gpus(self, app_name: str) -> GpuUsage:
        """Count the GPUs of an app's runners, by model. The result is like {"gpus": {"H100": 2}, "total": 2}.

        Args:
            app_name: the app, with or without its owner.

        Raises:
            NotFoundError: no app of that name has runners.
        """
        from fal.gpus import METRICS_PATH, usage_of_app

        name = checked_name(app_name)
        rest = self.client.rest()
        return usage_of_app(rest.ask("GET", METRICS_PATH), name)

    def explain(self, app_name: str, *, environment_name: str | None = None) -> AppExplanation:
        """Explain why an app has its runners: load, arithmetic and recent decisions.

        Args:
            app_name: the app.
            environment_name: the environment; None means the default one.
        """
        controller = self.client.controller()
        return controller.explain_application(app_name, environment_name=environment_name)

    def simulate(
        self,
        arrivals: Sequence[tuple[float, float]],
        app_name: str | None = None,
        *,
        settings: Mapping[str, int] | None = None,
        start_seconds: float = 5.0,
        environment_name: str | None = None,
    ) -> AppSimulation:
        """Simulate how an app scales for a load, without changing anything.

        Args:
            arrivals: the requests, each (seconds from the start, duration in seconds).
            app_name: the app whose settings apply; None means those of a new app.
            settings: settings to try instead, by their names in `scale`, for example {"max_concurrency": 5}.
            start_seconds: how long a runner takes to become ready.
            environment_name: the environment; None means the default one.
        """
        controller = self.client.controller()
        return controller.simulate_application(
            arrivals,
            application_name=app_name,
            environment_name=environment_name,
            settings=settings,
            start_seconds=start_seconds,
        )

    def list_rev(
        self, app_name: str | None = None, *, environment_name: str | None = None
    ) -> builtins.list[ApplicationInfo]:
        """List the revisions of one app, or of all, newest first."""
        controller = self.client.controller()
        return controller.list_applications(app_name, environment_name=environment_name)

    def set_rev(
        self,
        app_name: str,
        app_rev: str,
        *,
        auth: AuthMode | str | None = None,
        strategy: DeploymentStrategy | str | None = None,
        environment_name: str | None = None,
    ) -> AliasInfo:
        """Point an app at a revision.

        Args:
            app_name: the app; created if it does not exist.
            app_rev: the revision.
            auth: who may call it: private, public or shared; None leaves it unchanged.
            strategy: how the app moves: rolling or recreate; None leaves the choice to the controller.
            environment_name: the environment; None means the default one.

        Returns:
            The app after the change.
        """
        controller = self.client.controller()
        return controller.set_alias(
            app_name,
            text("app_rev", app_rev),
            auth_mode=auth,
            environment_name=environment_name,
            deployment_strategy=strategy,
        )

    def delete(self, app_name: str, *, environment_name: str | None = None) -> str | None:
        """Delete an app.

        Returns:
            The revision that it pointed at, which is kept; None if the app did not exist.
        """
        controller = self.client.controller()
        try:
            return controller.delete_alias(app_name, environment_name=environment_name)
        except NotFoundError:
            return None

    def delete_rev(self, app_rev: str) -> None:
        """Delete a revision that no app points at."""
        controller = self.client.controller()
        controller.delete_application(text("app_rev", app_rev))
