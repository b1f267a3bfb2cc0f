"""The metrics page: values of an account, and of the controller."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fal_server.core.exposition import to_text
from fal_server.core.identity import Scope
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.requests import DirectRequest
from fal_server.core.resources import ResourceSample
from fal_server.core.routing import Outcome
from fal_server.core.sketch import DurationSketch
from fal_server.http.gateway.metrics_client import HttpMetricsReader
from fal_server.http.gateway.upstream import straight
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.measurements import Measurements
from fal_server.live.request_totals import RequestTotals
from fal_server.live.unsent_lines import UnsentLines
from fal_server.services.app_metrics import AppMetrics
from fal_server.services.drains import Drains
from fal_server.services.metrics import ControllerMetrics, Metrics
from fal_server.services.request_recording import RequestRecording
from fal_server.store import AesVault
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.platform import KEY, OTHER, Platform
from tests.support.controller import ROOT

NOW = 1000.0
DASHBOARD = ROOT / "docs" / "howto" / "grafana.json"


class Page:
    """The metrics of a platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.ended = EndedRequests(100)
        self.resources = Measurements(platform.fleet)
        self.lags = DurationSketch()
        totals = RequestTotals()
        recording = RequestRecording(
            self.ended,
            platform.store.requests,
            platform.catalog,
            platform.clock,
            totals=totals,
            monotonic=lambda: NOW,
        )
        durations = {
            f"fal_controller_{name}_seconds": ("Help", lambda: self.lags)
            for name in ("event_loop_lag", "store_write", "log_lag")
        }
        self.drains = Drains(platform.store.drains, UnsentLines(), AesVault(KEY), platform.clock)
        self.metrics = Metrics(
            platform.catalog,
            platform.fleet,
            platform.dispatcher,
            self.resources,
            totals,
            recording,
            platform.clock,
            lambda scope: "me",
            ControllerMetrics("1.2", durations, self.ended, recording),
            self.drains,
            AppMetrics(platform.fleet, HttpMetricsReader(straight)),
        )

    def end(self, code: int | None, seconds: float, *, method: bytes = b"POST") -> None:
        self.ended.add(
            DirectRequest(
                app_id("a"),
                "r",
                "runner",
                "rev",
                b"/",
                method,
                "k",
                NOW - seconds,
                NOW - seconds,
                NOW,
                code,
                None,
                1,
                1,
                code == 500,
            )
        )

    async def families(self, scope: Scope = SCOPE) -> dict[str, list[Sample]]:
        text = to_text(await self.metrics.collect(scope))
        return {
            sample.name: family.samples for family in text_string_to_metric_families(text) for sample in family.samples
        }

    async def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        samples = (await self.families()).get(name, [])
        return {
            tuple(sample.labels.get(label, "") for label in labels): sample.value
            for sample in samples
            if sample.name == name
        }


async def test_the_published_names(platform: Platform) -> None:
    await platform.deploy("a", scaling={"min_concurrency": 1, "max_concurrency": 1})
    page = Page(platform)
    lease = await platform.get()
    waiting = platform.ask(request_id="second")
    await platform.until(lambda: platform.dispatcher.load(platform.app()).queued)
    page.end(200, 0.02)
    page.end(200, 3.0)
    page.end(500, 0.3)
    page.end(None, 0.3, method=b"GET")
    runner = platform.the_runner()
    assert await page.values("fal_app_runners", "application", "machine_type", "state") == {
        ("me/a", runner.machine_type, "running"): 1
    }
    assert await page.values("fal_app_queue_size", "application") == {("me/a",): 1}
    assert await page.values("fal_app_concurrent_requests", "application") == {("me/a",): 1}
    assert await page.values("fal_app_requests_completed", "method", "status") == {
        ("POST", "200"): 2,
        ("POST", "500"): 1,
        ("GET", "left"): 1,
    }
    assert await page.values("fal_app_requests_received", "application", "method") == {
        ("me/a", "POST"): 3,
        ("me/a", "GET"): 1,
    }
    latency = await page.values("fal_app_request_latency", "le")
    assert (latency["0.025",], latency["1.0",], latency["5.0",], latency["+Inf",]) == (1, 3, 4, 4)
    platform.clock.advance(61)
    assert await page.values("fal_app_requests_completed", "status") == {}
    assert await page.values("fal_requests_total", "method", "status") == {
        ("POST", "200"): 2,
        ("POST", "500"): 1,
        ("GET", "left"): 1,
    }
    waiting.cancel()
    platform.dispatcher.release(lease, Outcome.DONE)


async def test_counters_grow_and_histograms_add_up(idle: Platform) -> None:
    page = Page(idle)
    for number in range(3):
        page.end(500, 0.1 * (number + 1))
    durations = await page.values("fal_request_duration_seconds_bucket", "le")
    assert (durations["0.05",], durations["0.25",], durations["+Inf",]) == (0, 2, 3)
    assert (await page.values("fal_request_duration_seconds_count"))[()] == 3
    assert abs((await page.values("fal_request_duration_seconds_sum"))[()] - 0.6) < 1e-6
    assert await page.values("fal_cold_starts_total", "application") == {("me/a",): 3}
    page.end(200, 0.1)
    assert await page.values("fal_requests_total", "status") == {("200",): 1, ("500",): 3}


async def test_what_runners_use(platform: Platform) -> None:
    await platform.deploy("a")
    await platform.get()  # its runner is there
    page, runner = Page(platform), platform.the_runner()
    at = platform.clock.now() + timedelta(seconds=10)
    page.resources.record(runner.runner_id, ResourceSample(cpu_seconds=5.0, memory_bytes=2**20), at)
    assert await page.values("fal_runner_memory_bytes", "application", "runner_id") == {
        ("me/a", runner.runner_id): 2**20
    }
    assert (await page.values("fal_runner_cpu_cores", "runner_id"))[runner.runner_id,] > 0
    assert await page.values("fal_runner_gpu_cores", "runner_id") == {}


async def test_how_far_drains_are(platform: Platform) -> None:
    page = Page(platform)
    await page.drains.create(SCOPE, "d", "https://receiver.test/")
    line = LogEntry(
        runner_id="r",
        sequence=1,
        timestamp=platform.clock.now(),
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message="text",
        account=SCOPE.account,
        app_name="a",
    )
    await platform.store.logs.append([line])
    platform.clock.advance(7)
    values = {name: await page.values(f"fal_drain_{name}", "drain") for name in ("unsent_lines", "lag_seconds")}
    assert values == {"unsent_lines": {("d",): 1}, "lag_seconds": {("d",): 7}}
    await platform.store.logs.forget(platform.clock.now())
    assert await page.values("fal_drain_lost_lines_total", "drain") == {("d",): 1}
    assert await page.values("fal_drain_unsent_lines", "drain") == {("d",): 0}
    drain = (await page.drains.get(SCOPE, "d")).drain
    await platform.store.drains.fail(drain.drain_id, "away", platform.clock.now())
    assert await page.values("fal_drain_failing", "drain") == {("d",): 1}


async def test_other_accounts_see_nothing_of_it(platform: Platform) -> None:
    await platform.deploy("a")
    page = Page(platform)
    page.end(200, 0.1)
    page.lags.add(0.1)
    own = await page.families()
    assert own["fal_controller_info"][0].labels == {"version": "1.2"}
    assert "fal_controller_event_loop_lag_seconds_count" in own
    assert await page.families(replace(SCOPE, account=OTHER)) == {}


async def test_each_expression_of_the_dashboard_names_a_metric(platform: Platform) -> None:
    await platform.deploy("a")
    await platform.get()  # its runner is there
    page = Page(platform)
    page.end(200, 0.1)
    page.lags.add(0.1)
    runner_id = platform.the_runner().runner_id
    sample = ResourceSample(cpu_seconds=5.0, memory_bytes=2**20, gpu_memory_bytes=1, gpu_cores=1.0)
    page.resources.record(runner_id, sample, platform.clock.now() + timedelta(seconds=10))
    known = {name for name, samples in (await page.families()).items() if samples}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) >= 10
    for expression in expressions:
        named = set(re.findall(r"\bfal_\w+", expression))
        assert named, expression
        assert named <= known, f"{expression}: {named - known} is no metric"
