"""`client.apps`: the apps, their revisions, their scaling and their runners."""

from __future__ import annotations

import builtins
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fal.api import log_reading
from fal.api.logs import question
from fal_grpc.adapter.app import AliasInfo, AuthMode, DeploymentStrategy
from fal_grpc.adapter.log import LogEntry, LogOrigin
from fal_grpc.adapter.runner import RunnerInfo, RunnerState, parse_states
from fal_grpc.adapter.scaling import AppExplanation, AppSimulation
from fal_grpc.errors import NotFoundError

if TYPE_CHECKING:
    from fal.api.client import SyncServerlessClient
    from fal.gpus import GpuUsage
    from fal_grpc.adapter.revision import ApplicationInfo


class AppsNamespace:
    """The apps of a controller; `fal apps` on the command line. Reached as `client.apps`.

    Example:
        with SyncServerlessClient() as client:
            for app in client.apps.list():
                print(app.alias, app.active_runners)
            client.apps.scale("my-app", max_concurrency=10)
    """

    def __init__(self, client: SyncServerlessClient) -> None:
        self.client = client

    def list(self, *, filter: str | None = None, environment_name: str | None = None) -> list[AliasInfo]:  # noqa: A002
        """The apps of an environment.

        Args:
            filter: only apps whose name contains this text.
            environment_name: the environment; None means the default one.
        """
        return containing(filter, self.client.controller().list_aliases(environment_name=environment_name))

    def runners(
        self,
        app_name: str,
        *,
        since: datetime | None = None,
        state: Sequence[RunnerState | str] | None = None,
        environment_name: str | None = None,
    ) -> builtins.list[RunnerInfo]:
        """The runners of one app.

        Args:
            app_name: the app.
            since: also those that ended at or after this moment; a naive one is local time.
            state: only those in one of these states, such as ["running", "idle"]; None or ["all"] means any.
            environment_name: the environment; None means the default one.
        """
        wanted = parse_states(state)
        found = self.client.controller().list_alias_runners(app_name, since=since, environment_name=environment_name)
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
        """Change how an app scales; what is not given stays as it is.

        Args:
            app_name: the app.
            keep_alive: seconds that a runner without requests is kept.
            max_multiplexing: most requests at a time on one runner.
            max_concurrency: most runners.
            min_concurrency: least runners, also without any request.
            concurrency_buffer: runners kept above what the load needs.
            concurrency_buffer_perc: the same as a percentage; the greater of the two counts.
            scaling_delay: seconds that a request waits before it may cause another runner.
            request_timeout: seconds after which a request is cut off.
            request_start_timeout: seconds that a request may wait to be started; 0 takes the limit away.
            startup_timeout: seconds that a runner has to become ready.
            machine_types: types that will do, the preferred one first.
            regions: regions that will do.
            environment_name: the environment; None means the default one.

        Returns:
            The app as it now is.
        """
        return self.client.controller().update_application(
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
        """Replace the runners of an app with new ones of the same revision, one after another.

        Args:
            app_name: the app.
            force: replace all at once.
            environment_name: the environment; None means the default one.
        """
        self.client.controller().rollout_application(app_name, force=force, environment_name=environment_name)

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
    ) -> Generator[LogEntry, None, None]:
        """What all runners of an app have printed, past and present, merged by time; each line says its runner.

        Args:
            app_name: the app.
            follow: go on with lines as they are written, also of runners that are started meanwhile, without end. If
                the controller cannot be reached for a while, it goes on where it was, without a gap or a line twice.
            since: only lines at or after this moment; None means all, or with follow those of the last minute. This
                and `until` are local time if naive.
            until: only lines before this moment; not with follow.
            search: only lines that contain this text, upper and lower case alike.
            lines: at most so many, the newest ones; with follow, those before it goes on.
            oldest: with `lines`, the oldest ones instead; not with follow.
            sources: only lines from these: "build", "system", "stdout", "stderr"; empty means all.
            request_id: only lines that were written for this request.
            environment_name: the environment; None means the default one.

        Returns:
            The lines, the oldest first. Close it (or break out of the loop and forget it) to stop following.

        Raises:
            NotFoundError: there is no such app, and no line of one.
            UnimplementedError: the controller gives lines of single runners only.
        """
        asked = question(
            app=app_name,
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
        return log_reading.read(self.client, asked, follow=follow)

    def gpus(self, app_name: str) -> GpuUsage:
        """How many GPUs an app's runners hold, by model: {"gpus": {"H100": 2}, "total": 2}.

        Args:
            app_name: the app, with or without its owner.

        Raises:
            NotFoundError: no app of that name has runners.
        """
        from fal.gpus import usage

        return usage(self.client.rest(), app_name)

    def explain(self, app_name: str, *, environment_name: str | None = None) -> AppExplanation:
        """Say why an app has the runners that it has: its load, the arithmetic, and what was decided of late.

        Args:
            app_name: the app.
            environment_name: the environment; None means the default one.
        """
        return self.client.controller().explain_application(app_name, environment_name=environment_name)

    def simulate(
        self,
        arrivals: Sequence[tuple[float, float]],
        app_name: str | None = None,
        *,
        settings: Mapping[str, int] | None = None,
        start_seconds: float = 5.0,
        environment_name: str | None = None,
    ) -> AppSimulation:
        """Play requests through the controller's rules of scaling. Nothing is changed.

        Args:
            arrivals: the requests, each (seconds from the beginning, duration in seconds).
            app_name: the app whose settings hold; None means those of a new app.
            settings: settings to try instead, by their names in `scale`, such as {"max_concurrency": 5}.
            start_seconds: from the order for a runner to where it takes requests.
            environment_name: the environment; None means the default one.
        """
        return self.client.controller().simulate_application(
            arrivals,
            application_name=app_name,
            environment_name=environment_name,
            settings=settings,
            start_seconds=start_seconds,
        )

    def list_rev(
        self, app_name: str | None = None, *, environment_name: str | None = None
    ) -> builtins.list[ApplicationInfo]:
        """The revisions of one app, or of all, the newest first."""
        return self.client.controller().list_applications(app_name, environment_name=environment_name)

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
            app_name: the app; made where there is none of that name.
            app_rev: the revision.
            auth: who may call it: private, public or shared; None leaves that as it is.
            strategy: how it moves: rolling or recreate; None leaves that to the controller.
            environment_name: the environment; None means the default one.

        Returns:
            The app as it now is.
        """
        return self.client.controller().set_alias(
            app_name, app_rev, auth_mode=auth, environment_name=environment_name, deployment_strategy=strategy
        )

    def delete(self, app_name: str, *, environment_name: str | None = None) -> str | None:
        """Delete an app.

        Returns:
            The revision that it pointed at, which stays; None where there was no such app.
        """
        try:
            return self.client.controller().delete_alias(app_name, environment_name=environment_name)
        except NotFoundError:
            return None

    def delete_rev(self, app_rev: str) -> None:
        """Delete a revision that no app points at."""
        self.client.controller().delete_application(app_rev)


def containing(text: str | None, apps: list[AliasInfo]) -> list[AliasInfo]:
    """Those whose name contains a text; without one, all."""
    return [app for app in apps if text in app.alias] if text else apps
