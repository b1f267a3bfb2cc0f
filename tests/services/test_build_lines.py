"""A build's lines are stored for the app deployed on it."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from fal_server.core.faults import FailedPrecondition
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogLevel, LogQuery, LogSource
from fal_server.services.build_lines import BuildLines
from fal_server.services.views import Built
from tests.fakes.domain import SCOPE, make_revision
from tests.fakes.platform import Platform, code_request


async def lines_of(platform: Platform, app: str) -> list[tuple[str, int, str]]:
    page = await platform.logs.page(SCOPE, LogQuery(app_name=app, sources=(LogSource.BUILD,)))
    return [(entry.runner_id, entry.sequence, entry.message) for entry in page.entries]


async def build(platform: Platform, *, force: bool = False) -> str:
    async with aclosing(platform.deploys.build(SCOPE, code_request(force_build=force))) as events:
        *_, built = [event async for event in events]
    assert isinstance(built, Built)
    return built.env_id


async def test_a_build_that_was_asked_for_before_the_deploy(platform: Platform) -> None:
    env_id = await build(platform)
    revision_id = (await platform.deploy()).revision_id
    runner_id = f"build-{env_id[:12]}-{revision_id[:8]}"
    expected = [(runner_id, 1, "resolving"), (runner_id, 2, "installing")]
    assert await lines_of(platform, "a") == expected
    page = await platform.logs.page(SCOPE, LogQuery(runner_id=runner_id))
    assert {entry.revision_id for entry in page.entries} == {revision_id}
    # The environment exists, so nothing is built and no line is written.
    await platform.deploy()
    await platform.deploy("b")
    assert await lines_of(platform, "a") == expected
    assert await lines_of(platform, "b") == []


async def test_a_build_by_the_deploy_and_one_that_is_forced(platform: Platform) -> None:
    await platform.deploy()
    assert [message for _, _, message in await lines_of(platform, "a")] == ["resolving", "installing"]
    await build(platform, force=True)
    await build(platform, force=True)
    await platform.deploy("b")
    assert [message for _, _, message in await lines_of(platform, "b")] == ["resolving", "installing"]


async def test_only_the_latest_builds_and_their_last_lines_wait(platform: Platform) -> None:
    lines = BuildLines(platform.logs)
    await platform.deploy()
    entry = (await platform.logs.page(SCOPE, LogQuery(app_name="a"))).entries[0]

    async def nowhere(_entry: object) -> None:
        return

    for number in range(33):
        log = lines.keeping(f"env-{number:08}", nowhere)
        for _ in range(5001 if number == 32 else 1):
            await log(entry)
    await lines.store("env-00000000", make_revision(app_name="first"))
    await lines.store("env-00000032", make_revision(app_name="last"))
    assert (await platform.log_store.page(LOCAL, LogQuery(app_name="first"))).entries == ()
    page = await platform.log_store.page(LOCAL, LogQuery(app_name="last", limit=10_000))
    assert [entry.sequence for entry in page.entries] == list(range(1, 5001))


@pytest.mark.parametrize("by_deploy", [False, True])
async def test_a_build_that_fails_is_told_with_the_app(platform: Platform, by_deploy: bool) -> None:
    platform.builder.fails = "no such package"
    for _ in range(2):
        with pytest.raises(FailedPrecondition):
            await (platform.deploy() if by_deploy else build(platform))
    found = await lines_of(platform, "a")
    assert sorted(found[index][1:] for index in range(6)) == [
        *[(1, "resolving")] * 2,
        *[(2, "installing")] * 2,
        *[(3, "no such package")] * 2,
    ]
    assert len({runner_id for runner_id, _, _ in found}) == 2
    page = await platform.logs.page(SCOPE, LogQuery(app_name="a"))
    assert {(entry.revision_id, entry.level) for entry in page.entries if entry.sequence == 3} == {("", LogLevel.ERROR)}
    platform.builder.fails = ""
    await platform.deploy()
    assert len(await lines_of(platform, "a")) == 8
