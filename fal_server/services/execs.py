"""Checks whether a runner can be entered. It returns the channel to its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from fal_server.core import names
from fal_server.core.faults import FailedPrecondition, NotFound, Unavailable
from fal_server.core.identity import Scope
from fal_server.core.runners import Runner, RunnerState
from fal_server.live.fleet import Fleet
from fal_server.ports.execs import ExecChannel, ExecEngine

T = TypeVar("T")
WITHOUT_PROCESS = (RunnerState.PENDING, RunnerState.FAILURE_DELAY, RunnerState.DOCKER_PULL)
_ENTERABLE = (RunnerState.SETUP, RunnerState.IDLE, RunnerState.DRAINING)
_NOTICES = {
    RunnerState.SETUP: "runner {} is being set up: its app is not ready yet",
    RunnerState.DRAINING: "runner {} is draining: it ends, and this with it, when its requests are done",
}


def require_enterable(runner: Runner) -> None:
    """Check that a command can be started in a runner.

    Raises:
        NotFound: it has ended.
        FailedPrecondition: it has no process yet, or is ending.
    """
    require_there(runner)
    if runner.state in WITHOUT_PROCESS:
        why = f" ({runner.reason})" if runner.reason else ""
        raise FailedPrecondition(f"runner {runner.runner_id} is {runner.state}{why}: wait until it has started")
    if runner.state not in _ENTERABLE:
        raise FailedPrecondition(f"runner {runner.runner_id} is {runner.state}: no command can start in it")


def require_there(runner: Runner) -> None:
    """Check that a runner has not ended.

    Raises:
        NotFound: it has ended.
    """
    if runner.ended:
        why = runner.reason or "no reason"
        raise NotFound(f"runner {runner.runner_id!r}", f"it has ended, and its commands with it ({why})")


class Execs:
    """The use cases of commands that survive a broken connection. The runners themselves manage them."""

    def __init__(self, fleet: Fleet, engine: ExecEngine) -> None:
        self._fleet = fleet
        self._engine = engine

    async def enter(self, scope: Scope, runner_id: str) -> tuple[ExecChannel, str]:
        """Return the channel for starting a command, and a notice for people.

        Raises:
            NotFound: there is no such runner, or it has ended.
            FailedPrecondition: it has no process yet, or is ending.
            Unavailable: it cannot be reached.
        """
        runner = await self._require(scope, runner_id)
        require_enterable(runner)
        return self._engine.execs(runner), _NOTICES.get(runner.state, "").format(runner_id)

    async def line(self, scope: Scope, runner_id: str) -> ExecChannel:
        """Return the channel to the commands of a runner with a process.

        Raises:
            NotFound: there is no such runner, or it has ended.
            FailedPrecondition: it has no process yet.
            Unavailable: it cannot be reached.
        """
        runner = await self._require(scope, runner_id)
        require_there(runner)
        if runner.state in WITHOUT_PROCESS:
            require_enterable(runner)
        return self._engine.execs(runner)

    async def everywhere(self, scope: Scope, ask: Callable[[ExecChannel], Coroutine[object, object, T]]) -> Sequence[T]:
        """Ask every runner of the account. Skip those that cannot be reached or refuse."""
        runners = [runner for runner in self._fleet.of_account(scope.account) if runner.state not in WITHOUT_PROCESS]
        answers = await asyncio.gather(*(self._asked(runner, ask) for runner in runners))
        return [answer for answer in answers if answer is not None]

    async def _asked(self, runner: Runner, ask: Callable[[ExecChannel], Coroutine[object, object, T]]) -> T | None:
        try:
            return await ask(self._engine.execs(runner))
        except (NotFound, FailedPrecondition, Unavailable):
            return None

    async def _require(self, scope: Scope, runner_id: str) -> Runner:
        runner = await self._fleet.find(scope.account, names.identifier(runner_id, "runner_id"))
        if runner is None:
            raise NotFound(f"runner {runner_id!r}", "`fal runners list` shows which exist")
        return runner
