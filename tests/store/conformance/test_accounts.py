"""Two accounts in one database. Each call shows only what belongs to its account."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from fal_server.core.history import StateChange
from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, AccountId
from fal_server.core.logs import LogQuery
from fal_server.core.queue import Answer, Content, QueuedRequest, State, WebhookState
from fal_server.core.runners import RunnerState
from fal_server.core.webhooks import Delivery
from fal_server.ports.queue import QueueStore, RequestFilter
from fal_server.ports.store import LogStore, Store
from tests.store import strategies as some

OTHER = AccountId("other")
ACCOUNTS = (LOCAL, OTHER)

# Method -> a call by `account` about a thing of `owner`, which finds nothing unless they are the same.
BY_ID = {
    "get_revision": lambda s, account, owner: s.get_revision(account, f"spare-{owner}"),
    "get_app": lambda s, account, owner: s.get_app(account, f"only-{owner}"),
    "runner_history": lambda s, account, owner: s.runner_history(account, f"runner-{owner}"),
    "get_runner": lambda s, account, owner: s.get_runner(account, f"runner-{owner}"),
    "get_key": lambda s, account, owner: s.get_key(account, f"key-{owner}"),
    "get_environment": lambda s, account, owner: s.get_environment(account, f"env-{owner}"),
    "last_sequence": lambda s, account, owner: s.logs.last_sequence(account, f"runner-{owner}"),
    "get": lambda s, account, owner: s.queue.get(account, f"request-{owner}"),
    "content": lambda s, account, owner: s.queue.content(account, f"request-{owner}"),
    "answer": lambda s, account, owner: s.queue.answer(account, f"request-{owner}"),
    "deliveries": lambda s, account, owner: s.queue.deliveries(account, f"request-{owner}"),
    "expire_key": lambda s, account, owner: s.expire_key(account, f"key-{owner}", some.START),
    "note_key_use": lambda s, account, owner: s.note_key_use(account, f"key-{owner}", some.START),
    "revoke_key": lambda s, account, owner: s.revoke_key(account, f"key-{owner}", some.START),
    "delete_app": lambda s, account, owner: s.delete_app(account, f"only-{owner}"),
    "sizes_of": lambda s, account, owner: s.queue.sizes_of(account, [f"request-{owner}"]),
    "delete_revision": lambda s, account, owner: s.delete_revision(account, f"spare-{owner}"),
    "delete_secret": lambda s, account, owner: s.delete_secret(account, "main", f"ONLY_{owner}"),
    "delete_environment": lambda s, account, owner: s.delete_environment(account, f"env-{owner}"),
}
# Method -> a call that lists things; both accounts have some.
LISTS = {
    "list_revisions": lambda s, account: s.list_revisions(account, "hello", "main"),
    "page_revisions": lambda s, account: s.page_revisions(account, "", 100),
    "list_apps": lambda s, account: s.list_apps(account, None),
    "list_runners": lambda s, account: s.list_runners(account, some.START),
    "page_ended_runners": lambda s, account: s.page_ended_runners(account, some.START, None, (some.START, ""), 100),
    "list_keys": lambda s, account: s.list_keys(account),
    "list_secrets": lambda s, account: s.list_secrets(account, None),
    "list_environments": lambda s, account: s.list_environments(account),
    "find": lambda s, account: s.queue.find(account, RequestFilter(app_name="hello")),
}
LINES = {
    "of the app": LogQuery(app_name="hello"),
    "of all": LogQuery(),
    "newest first": LogQuery(app_name="hello", newest_first=True),
    "with a word": LogQuery(app_name="hello", search="line"),
}
OTHERWISE = {"page", "first_unsent"}


async def fill(store, account):
    """Give an account one of each noun. Some names are those that both accounts have, and some are unique."""
    for name in ("main", f"env-{account}"):
        await store.add_environment(replace(some.environment(name), account=account))
    for number, name in enumerate(("hello", f"only-{account}")):
        revision = replace(some.revision(f"revision-{account}-{number}", app_name=name), account=account)
        await store.register(revision, replace(some.app(name, revision.revision_id), account=account))
    await some.add_revision(store, replace(some.revision(f"spare-{account}"), account=account))
    runner = replace(some.runner(f"runner-{account}"), account=account)
    change = StateChange(runner_id=runner.runner_id, at=some.START, state=RunnerState.PENDING, reason="")
    ended = replace(some.runner(f"ended-{account}", ended_at=1), account=account)
    await store.save_runners([runner, ended], [change])
    await store.add_key(replace(some.key(f"key-{account}"), account=account))
    for name in ("TOKEN", f"ONLY_{account}"):
        await store.save_secret(replace(some.secret(name), account=account))
    await store.logs.append([replace(some.line(1, runner_id=f"runner-{account}"), account=account)])
    request = QueuedRequest(
        account=account, request_id=f"request-{account}", app_name="hello", path="/", created_at=some.START
    )
    await store.queue.add(request, Content(body=bytes(2**20 + 1)))
    ended = replace(request, state=State.COMPLETED, status=200, completed_at=some.START, webhook=WebhookState.PENDING)
    await store.queue.complete(ended, Answer(status=200, body=b"answer"))
    delivery = Delivery(request_id=request.request_id, number=1, at=some.START, status=200, error=None)
    await store.queue.delivered(replace(ended, webhook_attempts=1), delivery)


@pytest.fixture
async def two(store):
    for account in ACCOUNTS:
        await fill(store, account)
    return store


def test_no_call_that_takes_an_account_is_left_out():
    taking = {
        name
        for port in (Store, LogStore, QueueStore)
        for name, method in inspect.getmembers(port, inspect.isfunction)
        if "account" in inspect.signature(method).parameters
    }
    assert taking == set(BY_ID) | set(LISTS) | OTHERWISE


async def test_ids_of_the_other_account_are_nobodys(two):
    for account, owner in ((LOCAL, OTHER), (OTHER, LOCAL)):
        for name, call in BY_ID.items():
            assert not await call(two, account, owner), f"{account} reaches {owner} by {name}"
    for owner in ACCOUNTS:
        for name, call in BY_ID.items():
            assert await call(two, owner, owner), f"{owner} does not reach its own by {name}"


async def test_lists_hold_what_the_account_has(two):
    for account in ACCOUNTS:
        for name, call in LISTS.items():
            assert {found.account for found in await call(two, account)} == {account}, name
    for call in (LISTS["list_apps"], LISTS["list_runners"], LISTS["page_revisions"]):
        assert {found.account for found in await call(two, EVERY_ACCOUNT)} == set(ACCOUNTS)


async def test_log_lines_are_the_accounts(two):
    for account, other in ((LOCAL, OTHER), (OTHER, LOCAL)):
        for name, query in LINES.items():
            assert {entry.account for entry in (await two.logs.page(account, query)).entries} == {account}, name
        crossed = LogQuery(runner_id=f"runner-{other}")
        assert (await two.logs.page(account, crossed)).entries == ()
        assert await two.logs.first_unsent(account, "hello", {}, None) == some.later(1)
        assert await two.logs.first_unsent(account, "hello", {f"runner-{account}": 1}, None) is None
    # A cursor of one account shows the other account nothing.
    page = await two.logs.page(LOCAL, LogQuery(app_name="hello"))
    assert (await two.logs.page(OTHER, LogQuery(app_name="hello", after=page.cursor, newest_first=True))).entries == ()


async def test_the_same_names_are_other_things(two):
    assert [(await two.get_app(account, "hello")).account for account in ACCOUNTS] == list(ACCOUNTS)
    assert await two.delete_app(LOCAL, "hello")
    assert await two.get_app(LOCAL, "hello") is None
    assert await two.get_app(OTHER, "hello") is not None
    assert await two.delete_secret(LOCAL, "main", "TOKEN")
    assert [secret.name for secret in await two.list_secrets(OTHER, "main")] == [f"ONLY_{OTHER}", "TOKEN"]
    assert [secret.name for secret in await two.list_secrets(LOCAL, "main")] == [f"ONLY_{LOCAL}"]


async def test_an_environment_goes_with_its_own_secrets(two):
    for account in ACCOUNTS:
        await two.add_environment(replace(some.environment("dev"), account=account))
        await two.save_secret(replace(some.secret("TOKEN", environment="dev"), account=account))
    assert await two.delete_environment(LOCAL, "dev")
    assert await two.list_secrets(LOCAL, "dev") == []
    assert [secret.account for secret in await two.list_secrets(OTHER, "dev")] == [OTHER]
