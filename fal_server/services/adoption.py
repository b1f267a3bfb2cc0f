"""At the controller's start: the runners of an earlier one are taken back, and the books of those that ended closed."""

from __future__ import annotations

import asyncio

from fal_server.core.lifecycle import Event, Observation
from fal_server.core.runners import NO_PROCESS, Runner, RunnerState
from fal_server.live.fleet import Fleet
from fal_server.ports import Engine

_GONE = "it was gone when the controller came back"
_COPIED = "it belongs to the state directory that this one was copied from"
_CALLER_GONE = "the controller was restarted, and with it the call that started this runner ended"


async def reattach(fleet: Fleet, engine: Engine) -> None:
    """Adopt every runner that lives, and see to it that nothing else of an earlier controller does.

    To be called before anything is planned or routed.

    Raises:
        Unavailable: what was found cannot be stored; runners that were adopted go on.
    """
    await asyncio.gather(*(_reattach(fleet, engine, runner) for runner in fleet.runners))
    for runner_id in await engine.left_behind([runner.runner_id for runner in fleet.runners]):
        ended = await fleet.find(runner_id)
        # Its end was stored, its last lines perhaps not; where its shim is there, GONE comes and releases it.
        if ended is not None and await engine.adopt(ended) is not None:
            await engine.kill(ended)
    await engine.release_strangers([runner.runner_id for runner in fleet.runners])


async def give_up(fleet: Fleet) -> None:
    """End the rows of runners that belong to another state directory, without touching the runners.

    Raises:
        Unavailable: an end cannot be stored.
    """
    for runner in fleet.runners:
        await fleet.drain(runner.runner_id, _COPIED)
        await fleet.observe(Observation(runner_id=runner.runner_id, event=Event.GONE, reason=_COPIED))


async def _reattach(fleet: Fleet, engine: Engine, runner: Runner) -> None:
    runner_id = runner.runner_id
    adopted = await engine.adopt(runner)
    if adopted is None:
        if runner.state in NO_PROCESS and not runner.ephemeral:
            return  # it had not begun, or was cut off half way: it is started as if for the first time
        if runner.state is not RunnerState.TERMINATING:
            # Unwanted first, so that its end is not taken for a failed start: a machine that went down is none. One
            # that was being killed, as for its startup_timeout, stays what it was.
            await fleet.drain(runner_id, _GONE)
        await fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=_GONE))
        return
    # Stored here, though the engine tells it too: no plan may be made of a runner that only seems to have no process.
    await fleet.observe(
        Observation(runner_id=runner_id, event=Event.LAUNCHED, node=adopted.node, handle=adopted.handle)
    )
    if adopted.exited:
        fleet.stop_routing(runner_id)  # GONE is on its way; until then nothing is sent to it
    if runner.ephemeral:
        await fleet.kill(runner_id, _CALLER_GONE)
