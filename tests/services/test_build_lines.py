"""A build's lines are stored with those of the app that is deployed on it."""

from __future__ import annotations

from contextlib import aclosing

from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogQuery, LogSource
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
