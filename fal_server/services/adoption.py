"""Reattaches the runners of an earlier controller when this one starts."""

from __future__ import annotations

import asyncio

from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.runners import NO_PROCESS, Desired, Runner, RunnerState, StopCause
from fal_server.live.fleet import Fleet
from fal_server.ports import Engine

# Each runner's shim has some seconds to answer, and on a busy machine a thousand at once take longer.
_AT_ONCE = 64
_GONE = "it was gone when the controller came back"
_COPIED = "it belongs to the state directory that this one was copied from"
_UNREADABLE = "its token in the database is damaged, so that the controller could not reattach it"
_CALLER_GONE = "the controller was restarted, and with it the call that started this runner ended"


async def reattach(fleet: Fleet, engine: Engine) -> dict[str, int | None]:
    """Adopt every living runner, and end everything else of an earlier controller.

    Call it before anything is planned or routed.

    Returns:
        How many requests of the earlier controller each runner still works on, if any. None if its node is silent.

    Raises:
        Unavailable: the result cannot be stored; adopted runners continue.
    """
    runners = fleet.runners
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(runner: Runner) -> int | None:
        async with places:
            return await _reattach(fleet, engine, runner)

    counts = await asyncio.gather(*map(one, runners))
    # A runner without a token is ended as a stranger.
    for runner_id in await engine.left_behind([runner.runner_id for runner in fleet.runners]):
        ended = await fleet.find(EVERY_ACCOUNT, runner_id)
        # Its end is stored, but perhaps not its last log lines; if its shim lives, GONE follows and releases it.
        if ended is not None and ended.token and await engine.adopt(ended) is not None:
            await engine.kill(ended)
    await engine.release_strangers([runner.runner_id for runner in fleet.runners])
    return {runner.runner_id: count for runner, count in zip(runners, counts, strict=True) if count != 0}


async def give_up(fleet: Fleet) -> None:
    """End the rows of another state directory's runners without touching the runners.

    Raises:
        Unavailable: an end cannot be stored.
    """
    for runner in fleet.runners:
        await fleet.drain(runner.runner_id, _COPIED)
        await fleet.observe(Observation(runner_id=runner.runner_id, event=Event.GONE, reason=_COPIED))


async def _reattach(fleet: Fleet, engine: Engine, runner: Runner) -> int | None:
    runner_id = runner.runner_id
    if not runner.token:
        await fleet.drain(runner_id, _UNREADABLE)
        await fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=_UNREADABLE))
        return 0
    adopted = await engine.adopt(runner)
    if adopted is None:
        if runner.state in NO_PROCESS and not runner.ephemeral:
            return 0  # it never started, or its start was interrupted: start it again from scratch
        if runner.state is not RunnerState.TERMINATING:
            # Mark it unwanted first; otherwise its end would count as a failed start, although only the machine went
            # down. A runner that was being killed, for example by startup_timeout, keeps its reason.
            await fleet.drain(runner_id, _GONE)
        lost = StopCause.LOST if runner.desired is Desired.SERVE else None
        await fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=_GONE, stop_cause=lost))
        return 0
    # Store this here, although the engine also reports it: no plan may treat the runner as one without a process.
    await fleet.observe(
        Observation(runner_id=runner_id, event=Event.LAUNCHED, node=adopted.node, handle=adopted.handle)
    )
    if adopted.exited:
        fleet.stop_routing(runner_id)  # GONE follows; until then it gets no requests
    if runner.ephemeral:
        await fleet.kill(runner_id, _CALLER_GONE)
    return None if adopted.silent else adopted.requests_in_flight or 0
