"""The runners that a command can enter, and the errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import AccountId, Accounts
from fal_server.core.runners import Runner, RunnerState
from fal_server.services.execs import Execs
from tests.fakes.domain import SCOPE
from tests.fakes.platform import Platform


class Lines:
    """The ExecEngine port: a line is the runner's id."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def execs(self, runner: Runner) -> Any:
        if runner.runner_id in self.lost:
            raise Unavailable(f"runner {runner.runner_id} cannot be reached")
        return runner.runner_id


class Fleet:
    """Runners in a dictionary."""

    def __init__(self, *runners: Runner) -> None:
        self.known = {runner.runner_id: runner for runner in runners}

    def of_account(self, account: AccountId) -> list[Runner]:
        return [runner for runner in self.known.values() if not runner.ended]

    async def find(self, account: Accounts, runner_id: str) -> Runner | None:
        return self.known.get(runner_id)


@pytest.fixture
async def one(platform: Platform) -> Runner:
    await platform.deploy()
    await platform.get()
    return platform.the_runner()


async def test_a_ready_runner_is_entered_without_a_notice(one: Runner) -> None:
    execs = Execs(Fleet(one), Lines())  # type: ignore[arg-type]
    assert await execs.enter(SCOPE, one.runner_id) == (one.runner_id, "")


@pytest.mark.parametrize(
    ("state", "word"), [(RunnerState.SETUP, "not ready yet"), (RunnerState.DRAINING, "is draining")]
)
async def test_a_starting_or_draining_runner_is_entered_with_a_notice(
    one: Runner, state: RunnerState, word: str
) -> None:
    execs = Execs(Fleet(replace(one, state=state)), Lines())  # type: ignore[arg-type]
    _, notice = await execs.enter(SCOPE, one.runner_id)
    assert word in notice
    assert one.runner_id in notice


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (RunnerState.PENDING, "wait until it has started"),
        (RunnerState.FAILURE_DELAY, "wait until it has started"),
        (RunnerState.TERMINATING, "no command can start in it"),
    ],
)
async def test_a_runner_without_a_process_cannot_be_entered(one: Runner, state: RunnerState, word: str) -> None:
    execs = Execs(Fleet(replace(one, state=state)), Lines())  # type: ignore[arg-type]
    with pytest.raises(FailedPrecondition, match=word):
        await execs.enter(SCOPE, one.runner_id)


async def test_commands_are_reached_until_their_runner_ends(one: Runner) -> None:
    ending = replace(one, state=RunnerState.TERMINATING)
    assert await Execs(Fleet(ending), Lines()).line(SCOPE, one.runner_id) == one.runner_id  # type: ignore[arg-type]
    gone = Execs(Fleet(replace(one, state=RunnerState.TERMINATED)), Lines())  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="has ended"):
        await gone.enter(SCOPE, one.runner_id)
    with pytest.raises(NotFound, match="has ended"):
        await gone.line(SCOPE, one.runner_id)
    with pytest.raises(NotFound, match="fal runners list"):
        await gone.line(SCOPE, "nobody")
    with pytest.raises(InvalidArgument):
        await gone.line(SCOPE, "")


async def test_a_runner_that_cannot_be_reached_does_not_hide_the_others(one: Runner) -> None:
    lines = Lines()
    others = [replace(one, runner_id=name) for name in ("a", "b")]
    pending = replace(one, runner_id="c", state=RunnerState.PENDING)
    lines.lost.add("a")
    execs = Execs(Fleet(*others, pending), lines)  # type: ignore[arg-type]

    async def ask(line: Any) -> str:
        return str(line)

    assert await execs.everywhere(SCOPE, ask) == ["b"]
