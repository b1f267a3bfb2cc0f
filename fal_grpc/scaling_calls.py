"""The calls that look into scaling, for both faces; they are part of `Controller` and `AsyncController`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fal_grpc.adapter import scaling
from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.calls import Calls
from fal_grpc.documented import documented_by


class ScalingCalls:
    """Explaining and simulating apps."""

    _calls: Calls

    def explain_application(
        self, application_name: str, *, environment_name: str | None = None
    ) -> scaling.AppExplanation:
        """Say why an app has the runners that it has. Only this project's controllers serve this call."""
        request = scaling.explain_request(application_name, environment_name=environment_name)
        return scaling.explanation(self._calls.unary(self._calls.apps.ExplainApp, request))

    def simulate_application(
        self,
        arrivals: Sequence[tuple[float, float]],
        *,
        application_name: str | None = None,
        environment_name: str | None = None,
        settings: Mapping[str, int] | None = None,
        start_seconds: float = 5.0,
    ) -> scaling.AppSimulation:
        """Play requests, each (seconds from the beginning, duration in seconds), through the rules of scaling.

        Only this project's controllers serve this call.

        Args:
            arrivals: the requests.
            application_name: the app whose settings hold; None means those of a new app.
            settings: settings to try instead, by their names in `update_application`.
            start_seconds: from the order for a runner to where it takes requests.
        """
        request = scaling.simulate_request(
            arrivals,
            name=application_name,
            environment_name=environment_name,
            settings=settings,
            start_seconds=start_seconds,
        )
        return scaling.simulation(self._calls.unary(self._calls.apps.SimulateApp, request))


@documented_by(ScalingCalls)
class AsyncScalingCalls:
    """`ScalingCalls` for asyncio."""

    _calls: AsyncCalls

    async def explain_application(
        self, application_name: str, *, environment_name: str | None = None
    ) -> scaling.AppExplanation:
        request = scaling.explain_request(application_name, environment_name=environment_name)
        return scaling.explanation(await self._calls.unary(self._calls.apps.ExplainApp, request))

    async def simulate_application(
        self,
        arrivals: Sequence[tuple[float, float]],
        *,
        application_name: str | None = None,
        environment_name: str | None = None,
        settings: Mapping[str, int] | None = None,
        start_seconds: float = 5.0,
    ) -> scaling.AppSimulation:
        request = scaling.simulate_request(
            arrivals,
            name=application_name,
            environment_name=environment_name,
            settings=settings,
            start_seconds=start_seconds,
        )
        return scaling.simulation(await self._calls.unary(self._calls.apps.SimulateApp, request))
