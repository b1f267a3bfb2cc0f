"""Many concurrent callers, and callers that give up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fal_server.core.faults import AlreadyExists, Unavailable
from fal_server.core.identity import LOCAL
from tests.store import strategies as some


async def test_a_hundred_tasks_at_once(store):
    async def one(number):
        name = f"n{number:03}"
        await store.register(some.revision(name, app_name=name), some.app(name, name))
        await store.save_runners([some.runner(name, at=number)])
        await store.save_runners([replace(await store.get_runner(LOCAL, name), reason=name)])
        return await store.get_app(LOCAL, name)

    apps = await asyncio.gather(*(one(number) for number in range(100)))
    assert [app.name for app in apps] == [app.name for app in await store.list_apps(LOCAL, None)]
    assert [(r.runner_id, r.reason) for r in await store.list_runners(LOCAL, None)] == [(a.name, a.name) for a in apps]


async def test_one_of_many_gets_the_name(store):
    added = await asyncio.gather(*(store.add_environment(some.environment("dev")) for _ in range(20)))
    assert sorted(added) == [False] * 19 + [True]
    await store.add_key(some.key("k"))
    revoked = await asyncio.gather(*(store.revoke_key(LOCAL, "k", some.later(n)) for n in range(20)))
    assert sorted(revoked) == [False] * 19 + [True]


async def test_one_that_is_refused_takes_no_other_with_it(store):
    """They arrive at once, so they share a transaction."""
    await some.add_revision(store, some.revision("taken"))
    wanted = ["r1", "taken", "r2", "r1", "r3"]
    results = await asyncio.gather(
        *(store.register(some.revision(name), some.app(f"a{n}", name)) for n, name in enumerate(wanted)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), AlreadyExists, type(None), AlreadyExists, type(None)]
    assert sorted(app.name for app in await store.list_apps(LOCAL, None)) == ["a0", "a2", "a4"]


async def test_cancelled_callers_leave_whole_transactions(reopen):
    store = await reopen()
    tasks = [asyncio.create_task(store.register(some.revision(f"r{n}"), some.app(f"a{n}", f"r{n}"))) for n in range(50)]
    for number, task in enumerate(tasks):
        if number % 2:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    store = await reopen()  # a cancelled write still runs to its end
    revisions = {revision.revision_id[1:] for revision in await store.list_revisions(LOCAL, None, None)}
    apps = {app.name[1:] for app in await store.list_apps(LOCAL, None)}
    assert revisions == apps
    assert apps >= {str(number) for number in range(0, 50, 2)}


async def test_closing_lets_what_is_under_way_finish(reopen):
    store = await reopen()
    tasks = [asyncio.create_task(store.add_key(some.key(f"k{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    store = await reopen()
    await asyncio.gather(*tasks)
    assert len(await store.list_keys(LOCAL)) == 10


async def test_a_closed_store_says_so(store):
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.get_app(LOCAL, "hello")
    with pytest.raises(Unavailable, match="closed"):
        await store.logs.append([some.line(1)])
