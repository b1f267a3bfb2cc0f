"""Requests to runners: order, limits and hopeless waits. No slot is ever lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_server.core.faults import DeadlineExceeded, NotFound, StartDelayed, Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.machines import Node, Resources
from fal_server.core.quotas import Quotas
from fal_server.core.routing import Outcome
from fal_server.core.runners import RunnerState
from fal_server.live.dispatch import Lease
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform, opened, running


async def test_a_request_starts_a_runner_and_a_second_one_finds_it(platform: Platform) -> None:
    await platform.deploy()
    first = await platform.get()
    platform.dispatcher.release(first, Outcome.DONE)
    second = platform.dispatcher.try_acquire(app_id("a"), request_id="2", caller="key", hint=None)
    assert second is not None
    assert (second.runner_id, second.address) == (first.runner_id, first.address)
    assert len(platform.engine.launched) == 1


async def test_first_come_first_served(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 1})
    lease = await platform.get()
    order: list[int] = []

    async def one(number: int) -> None:
        mine = await platform.ask(request_id=str(number))
        order.append(number)
        platform.dispatcher.release(mine, Outcome.DONE)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(one(number))
            await asyncio.sleep(0)
        await platform.until(lambda: platform.dispatcher.load(platform.app()).queued == 20)
        assert platform.dispatcher.try_acquire(app_id("a"), request_id="x", caller=None, hint=None) is None
        platform.dispatcher.release(lease, Outcome.DONE)
    assert order == list(range(20))


async def test_a_cancelled_request_loses_its_place_to_the_next(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 1})
    lease = await platform.get()
    impatient, patient = platform.ask(), platform.ask()
    await platform.until(lambda: platform.dispatcher.load(platform.app()).queued == 2)
    impatient.cancel()
    platform.dispatcher.release(lease, Outcome.DONE)
    async with asyncio.timeout(20):
        got = await patient
    assert platform.fleet.usage(got.runner_id).in_flight == 1
    platform.dispatcher.release(got, Outcome.DONE)
    assert platform.fleet.usage(got.runner_id).in_flight == 0


@pytest.mark.parametrize("granted_first", [True, False])
async def test_a_slot_given_while_the_caller_hangs_up_is_passed_on(platform: Platform, granted_first: bool) -> None:
    await platform.deploy(scaling={"max_concurrency": 1})
    lease = await platform.get()
    leaving, next_one = platform.ask(), platform.ask()
    await platform.until(lambda: platform.dispatcher.load(platform.app()).queued == 2)
    if granted_first:
        platform.dispatcher.release(lease, Outcome.DONE)
        leaving.cancel()
    else:
        leaving.cancel()
        platform.dispatcher.release(lease, Outcome.DONE)
    async with asyncio.timeout(20):
        got = await next_one
    assert leaving.cancelled()
    assert platform.fleet.usage(got.runner_id).in_flight == 1


async def test_a_caller_that_the_quota_of_runners_holds_back_is_told_so(platform: Platform) -> None:
    platform.quotas = Quotas(runners=1)
    await platform.deploy("a")
    await platform.deploy("b")
    await platform.get("a")
    patient = platform.ask("b")
    await platform.until(lambda: any(r.not_before for r in platform.fleet.of_app(app_id("b"))))
    why = r"no runner of 'b' took the request within 0.01 s: its account has all the runners that its quota allows: 1"
    with pytest.raises(DeadlineExceeded, match=why):
        await platform.ask("b", start_timeout=0.01)
    patient.cancel()
    held = [each for each in platform.decisions.of(app_id("b")) if each.action == "hold"]
    assert {each.reason for each in held} == {"its account has all the runners that its quota allows: 1"}
    # Logged once for each; there may be a second one, for the second request.
    assert len({each.subject for each in held}) == len(held)


async def test_a_start_timeout_ends_the_wait_and_leaks_nothing(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    with pytest.raises(DeadlineExceeded, match="no runner of 'a' took the request"):
        await platform.ask(start_timeout=0.01)
    assert platform.dispatcher.load(platform.app()).queued == 0
    assert not platform.dispatcher.busy


async def test_releasing_twice_is_once(platform: Platform) -> None:
    await platform.deploy(scaling={"max_multiplexing": 2})
    one, two = await platform.get(), await platform.get()
    assert one.runner_id == two.runner_id
    platform.dispatcher.release(one, Outcome.DONE)
    platform.dispatcher.release(one, Outcome.RUNNER_FAILED)
    assert platform.fleet.usage(two.runner_id).in_flight == 1
    assert platform.the_runner().kill is False


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.UNUSED])
async def test_a_drained_runner_ends_after_its_last_request(platform: Platform, outcome: Outcome) -> None:
    await platform.deploy()
    lease = await platform.get()
    await platform.fleet.drain(lease.runner_id, "why")
    await platform.until(lambda: platform.the_runner().state is RunnerState.DRAINING)
    platform.dispatcher.release(lease, outcome)
    await platform.until(lambda: platform.fleet.get(lease.runner_id) is None)


@pytest.mark.parametrize("outcome", [Outcome.RUNNER_FAILED, Outcome.TIMED_OUT])
async def test_a_runner_that_failed_is_killed_and_gets_nothing_meanwhile(platform: Platform, outcome: Outcome) -> None:
    await platform.deploy()
    lease = await platform.get()
    platform.dispatcher.release(lease, outcome)
    assert platform.dispatcher.try_acquire(app_id("a"), request_id="2", caller=None, hint=None) is None
    await platform.until(lambda: platform.engine.killed == [lease.runner_id])
    again = await platform.get()
    assert again.runner_id != lease.runner_id


@pytest.mark.parametrize(
    ("crash", "said"),
    [
        ("worker exited with code 3", "the runner ended with exit code 3 while it worked on this request"),
        (
            "worker exited with code 1: OSError: no disk",
            "the runner ended with exit code 1 while it worked on this request: OSError: no disk",
        ),
        (
            "worker was killed by signal 9 (SIGKILL), which was not sent by the platform",
            "the runner was killed by signal 9 (SIGKILL) while it worked on this request",
        ),
    ],
)
async def test_a_caller_learns_how_the_runner_ended_by_itself(platform: Platform, crash: str, said: str) -> None:
    await platform.deploy()
    platform.engine.crash = crash
    lease = await platform.get()
    failure = await platform.dispatcher.runner_failed(lease, "it closed the connection")
    assert failure.detail == f"{said}. `fal runners logs {lease.runner_id}` shows what it wrote"
    assert failure.ended_alone
    ended = await platform.fleet.find(LOCAL, lease.runner_id)
    assert ended is not None
    assert ended.reason == f"{crash}; it broke the connection of request {lease.request_id}"


async def test_a_runner_that_the_platform_ended_is_not_said_to_have_crashed(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    failure = await platform.dispatcher.runner_failed(lease, "it closed the connection")
    assert (failure.detail, failure.ended_alone) == ("it closed the connection", False)


async def test_none_of_several_requests_is_blamed_for_the_end_of_their_runner(platform: Platform) -> None:
    await platform.deploy(scaling={"max_multiplexing": 2})
    platform.engine.crash = "worker exited with code 3"
    leases = [await platform.get(), await platform.get()]
    failures = [platform.dispatcher.runner_failed(lease, "closed") for lease in leases]
    assert [(await failure).ended_alone for failure in failures] == [False, False]


async def test_a_stop_does_not_wait_for_the_end_of_a_broken_runner(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    platform.engine.poisoned.add(lease.runner_id)  # it cannot be killed
    failure = platform.dispatcher.runner_failed(lease, "closed")
    await platform.dispatcher.close()
    assert (await failure).detail == "closed"


async def test_an_app_may_ask_for_its_runner_to_be_stopped(platform: Platform) -> None:
    await platform.deploy(scaling={"max_multiplexing": 2})
    one, two = await platform.get(), await platform.get()
    platform.dispatcher.release(one, Outcome.STOP_RUNNER)
    await platform.until(lambda: platform.the_runner().state is RunnerState.DRAINING)
    assert platform.engine.stopped == []
    platform.dispatcher.release(two, Outcome.CLIENT_GONE)
    await platform.until(lambda: platform.engine.stopped == [(one.runner_id, 5)])


@pytest.mark.parametrize("answers", [True, False])
async def test_a_broken_connection_is_the_runners_fault_only_if_its_node_answers(
    platform: Platform, answers: bool
) -> None:
    async def asked() -> bool:
        return answers

    abandoned: list[Lease] = []
    platform.node_answers = lambda _: asked()
    platform.dispatcher.on_abandoned = abandoned.append
    await platform.deploy()
    lease = await platform.get()
    failure = await platform.dispatcher.runner_failed(lease, "it broke")
    assert (failure.detail, failure.ended_alone) == ("it broke", False)
    if answers:
        await platform.until(lambda: platform.engine.killed == [lease.runner_id])
        return
    assert abandoned == [lease]
    assert platform.the_runner().kill is False
    assert platform.fleet.usage(lease.runner_id).in_flight == 1, "the app may still work on it"
    platform.dispatcher.release(lease, Outcome.DONE)
    assert platform.fleet.usage(lease.runner_id).in_flight == 0


async def test_a_node_that_does_not_answer_gets_no_requests(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 1})
    lease = await platform.get()
    node = platform.the_runner().node
    platform.dispatcher.release(lease, Outcome.DONE)
    platform.fleet.node_answers(node, False)
    assert platform.fleet.view(platform.the_runner(), None).unreachable
    assert platform.dispatcher.try_acquire(app_id("a"), request_id="2", caller=None, hint=None) is None
    waiting = platform.ask()
    await platform.until(lambda: platform.dispatcher.load(platform.app()).queued == 1)
    platform.fleet.node_answers(node, True)
    async with asyncio.timeout(20):
        assert (await waiting).runner_id == lease.runner_id
    assert not platform.fleet.view(platform.the_runner(), None).unreachable


async def test_a_failing_runner_is_ended_even_if_the_store_fails_at_first(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    platform.faulty.failures_left = 2
    platform.dispatcher.release(lease, Outcome.RUNNER_FAILED)
    await platform.until(lambda: platform.engine.killed == [lease.runner_id])


async def test_waiting_calls_fail_when_the_start_fails_and_no_other_runner_starts(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.ENDS
    with pytest.raises(Unavailable) as raised:
        await platform.get()
    runner_id = platform.engine.launched[0].runner_id
    assert raised.value.message == (
        "a runner of 'a' failed to start: setup() raised ValueError. "
        f"`fal runners logs {runner_id}` shows what it wrote"
    )


async def test_a_call_in_the_delay_after_failed_starts_learns_at_once_why_and_until_when(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.ENDS
    with pytest.raises(StartDelayed) as failed:
        await platform.get()
    assert failed.value.retry_after_seconds == 30
    runner_id = platform.engine.launched[0].runner_id
    platform.clock.advance(10.5)
    with pytest.raises(StartDelayed) as delayed:
        await platform.get()
    assert delayed.value.retry_after_seconds == 20
    assert delayed.value.message == (
        "no runner of 'a' serves: the last start failed: setup() raised ValueError; "
        f"`fal runners logs {runner_id}` shows what it wrote. The next start is tried in 20 s"
    )
    platform.clock.advance(20)
    platform.engine.start_as = Start.READY
    lease = await platform.get()
    assert lease.runner_id != runner_id


async def test_a_call_whose_time_limit_ends_in_the_delay_does_not_wait_for_it(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.ENDS
    with pytest.raises(StartDelayed):
        await platform.get()
    with pytest.raises(StartDelayed):
        await platform.ask(start_timeout=29)
    waiting = platform.ask(start_timeout=31)
    await platform.until(lambda: [r.state for r in platform.fleet.runners] == [RunnerState.FAILURE_DELAY])
    platform.engine.start_as = Start.READY
    platform.clock.advance(31)
    async with asyncio.timeout(20):
        await waiting


async def test_waiting_calls_wait_on_while_another_runner_starts(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    one, two = platform.ask(), platform.ask()
    await platform.until(lambda: len(platform.engine.alive) == 2)
    first, second = list(platform.engine.alive)
    platform.engine.gone(first, "crashed")
    await platform.until(lambda: platform.fleet.get(first) is None)
    assert not one.done()
    platform.engine.ready(second)
    async with asyncio.timeout(20):
        lease = await one
        platform.dispatcher.release(lease, Outcome.DONE)
        await two


async def test_waiting_calls_fail_if_no_node_can_ever_fit(platform: Platform) -> None:
    await platform.deploy(scaling={"machine_types": ("GPU-Z",)})
    platform.engine.machines = [Node(name="small", total=Resources(memory_mib=9999, gpus={}))]
    with pytest.raises(Unavailable, match="1 x GPU-Z asked for, 0 free"):
        await platform.get()


async def test_calls_wait_again_once_the_machine_type_is_another(platform: Platform) -> None:
    await platform.deploy(scaling={"machine_types": ("GPU-Z",), "min_concurrency": 1})
    platform.engine.machines = [Node(name="small", total=Resources(memory_mib=9999, gpus={}))]
    with pytest.raises(Unavailable, match="1 x GPU-Z asked for, 0 free"):
        await platform.get()
    await platform.apps.update(SCOPE, "a", "", {"machine_types": ("XS",)})
    waiting = platform.ask()
    await platform.settled()
    assert not waiting.done(), "what is known of the earlier machine type says nothing of this one"
    platform.clock.advance(20)
    async with asyncio.timeout(20):
        assert (await waiting).runner_id == platform.the_runner().runner_id


async def test_calls_wait_for_a_serving_runner_though_no_other_can_start(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    await platform.apps.update(SCOPE, "a", "", {"machine_types": ("GPU-Z",)})
    waiting = platform.ask()
    await platform.until(lambda: any("GPU-Z" in r.reason for r in platform.fleet.runners))
    platform.dispatcher.release(lease, Outcome.DONE)
    async with asyncio.timeout(20):
        assert (await waiting).runner_id == lease.runner_id


async def test_calls_wait_while_there_is_no_room(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 2})
    platform.engine.machines = [Node(name="small", total=Resources(memory_mib=512, gpus={}))]
    lease = await platform.get()
    waiting = platform.ask()
    await platform.until(lambda: any(r.reason.startswith("no node has room") for r in platform.fleet.runners))
    platform.dispatcher.release(lease, Outcome.DONE)
    async with asyncio.timeout(20):
        assert (await waiting).runner_id == lease.runner_id


async def test_deleting_an_app_fails_its_callers(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.start_as = Start.WAITS
    waiting = platform.ask()
    await platform.until(lambda: platform.engine.alive)
    await platform.apps.delete(SCOPE, "a", "")
    with pytest.raises(NotFound, match="app 'a' not found: it was deleted"):
        await waiting
    await platform.until(lambda: not platform.fleet.runners)


async def test_a_paused_app_says_so_at_once(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 0})
    with pytest.raises(Unavailable, match="is paused: `fal apps scale a --max-concurrency 1`"):
        await platform.get()


async def test_a_function_cannot_be_called(platform: Platform) -> None:
    await platform.deploy(exposed_port=None, scaling={"min_concurrency": 1})
    with pytest.raises(NotFound, match="without a port"):
        await platform.get()
    assert platform.engine.launched == []


async def test_raising_max_multiplexing_serves_waiting_requests(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 1})
    await platform.get()
    waiting = platform.ask()
    await platform.until(lambda: platform.dispatcher.busy)
    await platform.apps.update(SCOPE, "a", "", {"max_multiplexing": 2})
    async with asyncio.timeout(20):
        await waiting


async def test_find_checks_the_owner_and_says_who_may_call(platform: Platform) -> None:
    await platform.deploy(scaling={"request_timeout": 7})
    found = platform.dispatcher.find("me", "a")
    assert found is not None
    assert (found.app_id, found.public, found.request_timeout) == (app_id("a"), False, 7)
    assert platform.dispatcher.find("you", "a") is None
    assert platform.dispatcher.find("me", "b") is None


async def test_closing_fails_every_waiting_request(idle: Platform) -> None:
    await idle.deploy()
    waiting = idle.ask()
    await idle.until(lambda: idle.dispatcher.busy)
    await idle.dispatcher.close()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting


steps = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "try", "cancel", "release", "turn", "fail", "drain"]), st.integers(0, 20)),
    max_size=60,
)


@settings(max_examples=15, deadline=None)
@given(steps, st.integers(1, 3), st.integers(1, 3))
def test_no_slot_is_lost_or_given_twice(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int]], most: int, multiplexing: int
) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("blobs"), history, most, multiplexing))


async def _play(directory: Path, history: list[tuple[str, int]], most: int, multiplexing: int) -> None:
    async with opened(directory) as idle, running(idle) as platform:
        await platform.deploy(scaling={"max_concurrency": most, "max_multiplexing": multiplexing, "keep_alive": 99})
        asked: list[asyncio.Task] = []
        left: list[asyncio.Task] = []
        held: list = []
        for what, number in history:
            if what == "ask":
                asked.append(platform.ask())
            elif what == "try":
                lease = platform.dispatcher.try_acquire(app_id("a"), request_id="t", caller=None, hint=None)
                held += [lease] if lease else []
            elif what == "cancel" and asked:
                left.append(asked.pop(number % len(asked)))
                left[-1].cancel()
            elif what in ("release", "fail") and held:
                lease = held.pop(number % len(held))
                platform.dispatcher.release(lease, Outcome.DONE if what == "release" else Outcome.RUNNER_FAILED)
            elif what == "drain" and platform.fleet.runners:
                await platform.fleet.drain(platform.fleet.runners[number % len(platform.fleet.runners)].runner_id, "d")
            else:
                for _ in range(number):
                    await asyncio.sleep(0)
            held += [task.result() for task in asked if task.done() and not task.cancelled()]
            asked = [task for task in asked if not task.done()]
            for slot in platform.fleet.slots(app_id("a")):
                assert 0 <= slot.in_flight <= multiplexing
        async with asyncio.timeout(20):
            while asked or held:
                for lease in held:
                    platform.dispatcher.release(lease, Outcome.DONE)
                held.clear()
                if asked:
                    held.append(await asked.pop(0))
            await asyncio.gather(*left, return_exceptions=True)
        await platform.until(
            lambda: all(not platform.fleet.usage(r.runner_id).in_flight for r in platform.fleet.runners)
        )
        assert all(slot.in_flight == 0 for slot in platform.fleet.slots(app_id("a")))
        assert not platform.dispatcher.busy
