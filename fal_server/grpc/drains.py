"""Handlers for log drains. What may be a credential never leaves the controller."""

from __future__ import annotations

from fal_grpc.v1 import drain_pb2 as pb
from fal_server.core.drains import DrainFormat
from fal_server.core.logs import LogLevel
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named, timestamp
from fal_server.grpc.lines import LEVELS
from fal_server.services.drains import Drains, DrainView

_FORMATS = {
    DrainFormat.NDJSON: pb.DRAIN_FORMAT_NDJSON,
    DrainFormat.OTLP: pb.DRAIN_FORMAT_OTLP,
    DrainFormat.LOKI: pb.DRAIN_FORMAT_LOKI,
}
_FORMAT_OF: dict[int, DrainFormat] = {
    pb.DRAIN_FORMAT_UNSPECIFIED: DrainFormat.NDJSON,
    **{number: form for form, number in _FORMATS.items()},
}
_LEVEL_OF: dict[int, LogLevel] = {number: level for level, number in LEVELS.items()}


class DrainHandlers:
    """fal.v1.Drains."""

    def __init__(self, drains: Drains) -> None:
        self._drains = drains

    async def create_drain(self, request: pb.CreateDrainRequest, caller: Caller) -> pb.CreateDrainResponse:
        level = named(request.least_level, _LEVEL_OF, "least_level") if request.HasField("least_level") else None
        view = await self._drains.create(
            caller.scope,
            request.name,
            request.url,
            form=named(request.format, _FORMAT_OF, "format"),
            apps=request.apps,
            least_level=LogLevel.TRACE if level is None else level,
            headers=request.headers,
            signing_key=request.signing_key if request.HasField("signing_key") else None,
        )
        return pb.CreateDrainResponse(drain=_drain(view), warnings=view.warnings)

    async def list_drains(self, request: pb.ListDrainsRequest, caller: Caller) -> pb.ListDrainsResponse:
        return pb.ListDrainsResponse(drains=[_drain(view) for view in await self._drains.list(caller.scope)])

    async def get_drain(self, request: pb.GetDrainRequest, caller: Caller) -> pb.GetDrainResponse:
        return pb.GetDrainResponse(drain=_drain(await self._drains.get(caller.scope, request.name)))

    async def delete_drain(self, request: pb.DeleteDrainRequest, caller: Caller) -> pb.DeleteDrainResponse:
        await self._drains.delete(caller.scope, request.name)
        return pb.DeleteDrainResponse()

    async def pause_drain(self, request: pb.PauseDrainRequest, caller: Caller) -> pb.PauseDrainResponse:
        await self._drains.pause(caller.scope, request.name, paused=True)
        return pb.PauseDrainResponse()

    async def resume_drain(self, request: pb.ResumeDrainRequest, caller: Caller) -> pb.ResumeDrainResponse:
        await self._drains.pause(caller.scope, request.name, paused=False)
        return pb.ResumeDrainResponse()


def _drain(view: DrainView) -> pb.Drain:
    drain, unsent = view.drain, view.unsent
    return pb.Drain(
        name=drain.name,
        url=drain.shown_url,
        format=_FORMATS[drain.format],
        apps=drain.apps,
        least_level=LEVELS[drain.least_level],
        header_names=drain.header_names,
        signed=drain.signed,
        paused=drain.paused,
        created_at=timestamp(drain.created_at),
        sent_lines=drain.sent_lines,
        lost_lines=drain.lost_lines,
        unsent_lines=unsent.lines,
        oldest_unsent_at=None if unsent.oldest_at is None else timestamp(unsent.oldest_at),
        last_sent_at=None if drain.last_sent_at is None else timestamp(drain.last_sent_at),
        last_error=drain.last_error,
        last_error_at=None if drain.last_error_at is None else timestamp(drain.last_error_at),
    )
