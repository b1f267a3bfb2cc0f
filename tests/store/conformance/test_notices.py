"""Notices and their problems in the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, AccountId
from fal_server.core.notices import Notice, NoticeCondition, NoticeForm, Problem
from tests.fakes.history import NOON

OTHER = AccountId("other")
LATER = NOON + timedelta(minutes=7)


def notice(name="n", **changes) -> Notice:
    usual = Notice(
        account=LOCAL,
        notice_id=f"id of {name}",
        name=name,
        form=NoticeForm.WEBHOOK,
        receiver="example.test",
        thresholds={NoticeCondition.QUEUE_SIZE: 50.0, NoticeCondition.ERROR_SHARE: 0.5},
        apps=("a", "b"),
        created_at=NOON,
        sealed=b"sealed",
    )
    return replace(usual, **changes)


def problem(subject="a", **changes) -> Problem:
    usual = Problem(condition=NoticeCondition.QUEUE_SIZE, subject=subject, value=51.5, detail="text", began_at=NOON)
    return replace(usual, **changes)


async def test_a_notice_is_read_as_it_was_stored(store) -> None:
    kept = notice(signed=True, form=NoticeForm.EMAIL, apps=())
    assert await store.notices.add(kept)
    assert await store.notices.get(LOCAL, "n") == kept
    assert not await store.notices.add(notice(notice_id="another"))
    assert await store.notices.add(notice(account=OTHER, notice_id="another"))
    assert [each.account for each in await store.notices.list(EVERY_ACCOUNT)] == [LOCAL, OTHER]
    assert await store.notices.list(LOCAL) == [kept]
    assert await store.notices.get(LOCAL, "none") is None


async def test_problems_are_replaced_told_and_forgotten(store) -> None:
    await store.notices.add(notice())
    lasts, over = problem("a"), problem("b", ended_at=LATER, missing_since=LATER, told_at=NOON)
    await store.notices.save("id of n", [lasts, problem("b")])
    await store.notices.save("id of n", [over])
    assert await store.notices.problems("id of n") == [lasts, over]
    await store.notices.fail("id of n", "away", NOON)
    assert (await store.notices.get(LOCAL, "n")).last_error == "away"
    await store.notices.told("id of n", [lasts, over], LATER)
    assert await store.notices.problems("id of n") == [replace(lasts, told_at=LATER)]
    told = await store.notices.get(LOCAL, "n")
    assert (told.last_sent_at, told.last_error, told.last_error_at) == (LATER, None, None)


async def test_a_deleted_notice_takes_its_problems_with_it(store) -> None:
    await store.notices.add(notice())
    await store.notices.add(notice("m"))
    await store.notices.save("id of n", [problem()])
    await store.notices.save("id of m", [problem()])
    assert not await store.notices.delete(OTHER, "n")
    assert await store.notices.delete(LOCAL, "n")
    assert not await store.notices.delete(LOCAL, "n")
    await store.notices.save("id of n", [problem()])
    await store.notices.told("id of n", [problem()], NOON)
    await store.notices.fail("id of n", "away", NOON)
    assert await store.notices.problems("id of n") == []
    assert len(await store.notices.problems("id of m")) == 1
