"""Collects the metrics that a caller may read. They are of the account's apps and runners, and the controller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fal_server.core.exposition import Metric
from fal_server.core.identity import LOCAL, Scope
from fal_server.core.runners import NO_PROCESS, RunnerState
from fal_server.core.sketch import DurationSketch
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.fleet import Fleet
from fal_server.live.measurements import Measurements
from fal_server.live.request_totals import RequestTotals
from fal_server.ports import Clock
from fal_server.services.app_metrics import AppMetrics
from fal_server.services.drains import Drains
from fal_server.services.request_recording import RequestRecording
from fal_server.services.span_export import SpanExport

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Histogram bounds for durations, in seconds."""
LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Histogram bounds for delays that should be short, in seconds."""


class ControllerMetrics:
    """The controller's measurements of itself.

    Args:
        durations: by the metric's name: one line about it, and the durations.
        ended: counts the requests that found no room in the history.
        recording: counts those that the database refused.
        spans: counts what is exported; None exports nothing.
    """

    def __init__(
        self,
        version: str,
        durations: Mapping[str, tuple[str, Callable[[], DurationSketch]]],
        ended: EndedRequests,
        recording: RequestRecording,
        spans: SpanExport | None = None,
    ) -> None:
        self._spans = spans
        self._version = version
        self._durations = durations
        self._ended = ended
        self._recording = recording

    def collect(self) -> list[Metric]:
        """Return the current metrics."""
        info = Metric(name="fal_controller_info", kind="gauge", help="The version that runs")
        info.add(1, version=self._version)
        missing = Metric(
            name="fal_controller_requests_not_recorded_total",
            kind="counter",
            help="Requests that are missing in the request history",
        )
        missing.add(self._ended.dropped, reason="buffer_full")
        missing.add(self._recording.lost, reason="database")
        found = [info, missing]
        for name, (help_text, durations) in self._durations.items():
            metric = Metric(name=name, kind="histogram", help=help_text)
            _add_durations(metric, durations(), LAG_BOUNDS)
            found.append(metric)
        if self._spans is not None:
            sent = Metric(name="fal_controller_spans_sent_total", kind="counter", help="Spans that the receiver took")
            sent.add(self._spans.sent_spans)
            lost = Metric(name="fal_controller_spans_lost_total", kind="counter", help="Spans that were left out")
            lost.add(self._spans.lost_spans)
            found += [sent, lost]
        return found


class Metrics:
    """The use case of metrics.

    Args:
        controller: metrics that only keys of the first account see.
        apps: what the apps measure themselves.
    """

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        resources: Measurements,
        totals: RequestTotals,
        recording: RequestRecording,
        clock: Clock,
        nickname: Callable[[Scope], str],
        controller: ControllerMetrics,
        drains: Drains,
        apps: AppMetrics,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._resources = resources
        self._totals = totals
        self._recording = recording
        self._clock = clock
        self._nickname = nickname
        self._controller = controller
        self._drains = drains
        self._apps = apps

    async def collect(self, scope: Scope) -> Sequence[Metric]:
        """Return the metrics of the caller's account. They include everything that ended before the call."""
        await self._recording.store()
        found = [*self._load(scope), *self._last_minute(scope), *self._requests(scope), *self._runners(scope)]
        found += await self._of_drains(scope)
        if scope.account == LOCAL:
            found += self._controller.collect()
        return found + await self._apps.collect(scope, partial(self._application, scope))

    def _load(self, scope: Scope) -> list[Metric]:
        runners = Metric(name="fal_app_runners", kind="gauge", help="Number of runners of an app")
        waiting = Metric(name="fal_app_queue_size", kind="gauge", help="Number of requests that wait for a runner")
        running = Metric(
            name="fal_app_concurrent_requests", kind="gauge", help="Number of requests that runners process"
        )
        for app in self._catalog.apps:
            if app.account != scope.account:
                continue
            name = self._application(scope, str(app.app_id))
            waiting.add(self._dispatcher.load(app).queued, application=name)
            under_way = 0
            states: Counter[tuple[str, str]] = Counter()
            for runner in self._fleet.of_app(app.app_id):
                if runner.ended:
                    continue
                slot = self._fleet.slot(runner.runner_id)
                in_flight = 0 if slot is None else slot.in_flight
                under_way += in_flight
                busy = runner.state is RunnerState.IDLE and in_flight
                states[runner.machine_type, (RunnerState.RUNNING if busy else runner.state).value] += 1
            running.add(under_way, application=name)
            for (machine_type, state), count in sorted(states.items()):
                runners.add(count, application=name, machine_type=machine_type, state=state)
        return [runners, waiting, running]

    def _last_minute(self, scope: Scope) -> list[Metric]:
        completed = Metric(
            name="fal_app_requests_completed", kind="gauge", help="Number of requests that ended in the last minute"
        )
        received = Metric(
            name="fal_app_requests_received",
            kind="gauge",
            help="Number of requests that ended in the last minute, by method, whatever became of them",
        )
        latency = Metric(
            name="fal_app_request_latency",
            kind="gauge",
            help="Number of requests that ended in the last minute and took at most so many seconds",
        )
        for app, totals in self._totals.last_minute(scope.account, self._clock.now()).items():
            name = self._application(scope, app)
            by_method: Counter[str] = Counter()
            for (method, code), count in sorted(totals.ended.items()):
                completed.add(count, application=name, method=method, status=_status(code))
                by_method[method] += count
            for method, count in by_method.items():
                received.add(count, application=name, method=method)
            for bound, below in zip(BOUNDS, totals.durations.up_to(BOUNDS), strict=True):
                latency.add(below, application=name, le=f"{bound}")
            latency.add(totals.durations.count, application=name, le="+Inf")
        return [completed, received, latency]

    def _requests(self, scope: Scope) -> list[Metric]:
        ended = Metric(
            name="fal_requests_total",
            kind="counter",
            help="Requests that ended, by the status of the answer; `left` if the caller left before it",
        )
        durations = Metric(
            name="fal_request_duration_seconds", kind="histogram", help="How long requests took, waiting included"
        )
        waits = Metric(name="fal_request_wait_seconds", kind="histogram", help="How long requests waited for a runner")
        cold = Metric(name="fal_cold_starts_total", kind="counter", help="Requests that waited for a runner to start")
        for app, totals in self._totals.of_account(scope.account).items():
            name = self._application(scope, app)
            for (method, code), count in sorted(totals.ended.items()):
                ended.add(count, application=name, method=method, status=_status(code))
            _add_durations(durations, totals.durations, BOUNDS, application=name)
            _add_durations(waits, totals.waits, BOUNDS, application=name)
            cold.add(totals.cold_starts, application=name)
        return [ended, durations, waits, cold]

    def _runners(self, scope: Scope) -> list[Metric]:
        cores = Metric(name="fal_runner_cpu_cores", kind="gauge", help="CPU cores that a runner used recently")
        memory = Metric(name="fal_runner_memory_bytes", kind="gauge", help="Memory that a runner used recently")
        gpu_cores = Metric(name="fal_runner_gpu_cores", kind="gauge", help="GPUs that a runner used recently")
        gpu_memory = Metric(name="fal_runner_gpu_memory_bytes", kind="gauge", help="Memory of GPUs that a runner used")
        for runner in self._fleet.of_account(scope.account):
            used = None if runner.state in NO_PROCESS else self._resources.of(runner.runner_id)
            if used is None:
                continue
            labels = {"application": self._application(scope, str(runner.app_id)), "runner_id": runner.runner_id}
            cores.add(used.cpu_cores, **labels)
            memory.add(used.memory_bytes, **labels)
            if used.gpu_cores is not None:
                gpu_cores.add(used.gpu_cores, **labels)
            if used.gpu_memory_bytes is not None:
                gpu_memory.add(used.gpu_memory_bytes, **labels)
        return [cores, memory, gpu_cores, gpu_memory]

    async def _of_drains(self, scope: Scope) -> list[Metric]:
        unsent = Metric(name="fal_drain_unsent_lines", kind="gauge", help="Log lines that wait for a drain")
        lag = Metric(name="fal_drain_lag_seconds", kind="gauge", help="Age of the oldest line that waits for a drain")
        sent = Metric(name="fal_drain_sent_lines_total", kind="counter", help="Log lines that a drain's receiver took")
        lost = Metric(
            name="fal_drain_lost_lines_total", kind="counter", help="Log lines deleted before a drain had sent them"
        )
        failing = Metric(name="fal_drain_failing", kind="gauge", help="Whether a drain's last delivery failed")
        now = self._clock.now()
        for view in await self._drains.list(scope):
            drain, oldest = view.drain, view.unsent.oldest_at
            unsent.add(view.unsent.lines, drain=drain.name)
            lag.add(0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0), drain=drain.name)
            sent.add(drain.sent_lines, drain=drain.name)
            lost.add(drain.lost_lines, drain=drain.name)
            failing.add(drain.last_error is not None, drain=drain.name)
        return [unsent, lag, sent, lost, failing]

    def _application(self, scope: Scope, app: str) -> str:
        return f"{self._nickname(scope)}/{app}"


def _add_durations(metric: Metric, sketch: DurationSketch, bounds: Sequence[float], **labels: str) -> None:
    below = dict(zip(bounds, sketch.up_to(bounds), strict=True))
    metric.add_histogram(below, sketch.count, sketch.seconds, **labels)


def _status(code: int) -> str:
    return str(code or "left")
