"""Collects the apps' own measurements from the metrics port of each runner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from fal_server.core.app_metrics import MOST_BYTES, BadPage, merged, read_page
from fal_server.core.exposition import Metric
from fal_server.core.identity import Scope
from fal_server.core.runners import Runner, RunnerState
from fal_server.live.fleet import Fleet
from fal_server.ports import MetricsReader

log = logging.getLogger(__name__)
RUNNER_SECONDS = 2.0
"""How long a runner may take to send its page; all together may take twice as long."""
_AT_ONCE = 16


class AppMetrics:
    """Asks each runner when a page is asked for. Nothing is kept, and an app that is not asked does nothing."""

    def __init__(self, fleet: Fleet, reader: MetricsReader) -> None:
        self._fleet = fleet
        self._reader = reader

    async def collect(self, scope: Scope, application: Callable[[str], str]) -> list[Metric]:
        """Return the account's app metrics, and which runners have none.

        Args:
            application: the label of an app, by its name.
        """
        due = [
            runner
            for runner in self._fleet.of_account(scope.account)
            if runner.metrics_port and runner.state in (RunnerState.IDLE, RunnerState.DRAINING)
        ]
        up = Metric(name="fal_runner_metrics_up", kind="gauge", help="Whether a runner's metrics are on this page")
        problems = Metric(
            name="fal_runner_metrics_problem", kind="gauge", help="Why a runner's metrics are not on this page"
        )
        few = asyncio.Semaphore(_AT_ONCE)
        until = asyncio.get_running_loop().time() + 2 * RUNNER_SECONDS
        pages: list[list[Metric]] = []
        labels = [{"application": application(str(runner.app_id)), "runner_id": runner.runner_id} for runner in due]
        found = await asyncio.gather(*(self._read(*each, few, until) for each in zip(due, labels, strict=True)))
        for own, (page, problem) in zip(labels, found, strict=True):
            pages.append(page)
            up.add(not problem, **own)
            if problem:
                problems.add(1, **own, reason=problem)
        return [up, problems, *merged(pages)]

    async def _read(
        self, runner: Runner, labels: Mapping[str, str], few: asyncio.Semaphore, until: float
    ) -> tuple[list[Metric], str]:
        """Return a runner's metrics, or why there are none."""
        address = runner.metrics_address
        if address is None:
            return [], "unreachable"  # if anything answers there, it is another program
        try:
            async with asyncio.timeout_at(until), few:
                page = await self._reader.read(address, most_bytes=MOST_BYTES, seconds=RUNNER_SECONDS)
            # In a thread, because a large page takes tens of milliseconds.
            return await asyncio.to_thread(read_page, page, labels), ""
        except TimeoutError:
            return [], "timeout"
        except BadPage as bad:
            return [], str(bad)
        except Exception:
            log.exception("the metrics of runner %s could not be read", runner.runner_id)
            return [], "internal"
