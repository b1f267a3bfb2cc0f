"""When receivers are told: at the beginning and end, rarely in between. That holds however a value jumps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL
from fal_server.core.notices import (
    LIMITS,
    QUIET,
    REMIND_AFTER,
    Notice,
    NoticeCondition,
    NoticeForm,
    Problem,
    Reading,
    checked_mailbox,
    checked_thresholds,
    compared,
    headline,
    lines,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
STEP = timedelta(seconds=15)
NOTICE = Notice(
    account=LOCAL,
    notice_id="n",
    name="n",
    form=NoticeForm.WEBHOOK,
    receiver="r",
    thresholds={NoticeCondition.QUEUE_SIZE: 10.0, NoticeCondition.CERTIFICATE: 14.0},
    created_at=NOON,
    sealed=b"",
)


def reading(value: float, subject: str = "a", condition: NoticeCondition = NoticeCondition.QUEUE_SIZE) -> Reading:
    return Reading(condition=condition, subject=subject, value=value, detail=f"{value} wait")


class Receiver:
    """A receiver that always takes what is due."""

    def __init__(self) -> None:
        self.known: dict[tuple[NoticeCondition, str], Problem] = {}
        self.messages: list[tuple[datetime, str, bool]] = []

    def step(self, readings: list[Reading], now: datetime) -> None:
        for problem in compared(NOTICE, self.known.values(), readings, now):
            self.known[problem.key] = problem
        for problem in [each for each in self.known.values() if each.due(now)]:
            self.messages.append((now, problem.subject, problem.ended_at is None))
            if problem.ended_at is None:
                self.known[problem.key] = replace(problem, told_at=now)
            else:
                del self.known[problem.key]


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1200)), max_size=25))
def test_nobody_is_flooded_and_nothing_is_left_out(phases: list[tuple[bool, int]]) -> None:
    receiver, now = Receiver(), NOON
    history: list[tuple[datetime, bool]] = []
    for present, steps in phases:
        for _ in range(steps):
            receiver.step([reading(11)] if present else [reading(9)], now)
            history.append((now, present))
            now += STEP
    lasting = False
    for at, _, firing in receiver.messages:
        if firing and lasting:
            continue  # a reminder, whose distance is looked at below
        assert firing is not lasting, "an end without a beginning, or two ends"
        lasting = firing
        if not firing:
            before = [present for when, present in history if at - QUIET <= when <= at]
            assert not any(before), "it was told as over, though it was there"
    for (first, _, firing), (second, _, also) in zip(receiver.messages, receiver.messages[1:], strict=False):
        assert second - first >= (REMIND_AFTER if firing and also else STEP)
    for before, after in zip(receiver.messages, receiver.messages[2:], strict=False):
        assert after[0] - before[0] >= QUIET
    began = [when for when, present in history if present]
    assert [at for at, _, _ in receiver.messages][:1] == began[:1], "the first one is told of at once"


def test_each_subject_is_a_problem_of_its_own() -> None:
    receiver = Receiver()
    receiver.step([reading(11, "a"), reading(9, "b"), reading(12, "c")], NOON)
    assert [(subject, firing) for _, subject, firing in receiver.messages] == [("a", True), ("c", True)]


def test_a_certificate_is_a_problem_below_its_threshold() -> None:
    receiver = Receiver()
    receiver.step([reading(15, "controller", NoticeCondition.CERTIFICATE)], NOON)
    assert receiver.messages == []
    receiver.step([reading(13.9, "controller", NoticeCondition.CERTIFICATE)], NOON)
    assert len(receiver.messages) == 1


def test_a_reminder_has_the_latest_value() -> None:
    receiver = Receiver()
    receiver.step([reading(11)], NOON)
    receiver.step([reading(99)], NOON + STEP)
    assert next(iter(receiver.known.values())).value == 11
    receiver.step([reading(70)], NOON + REMIND_AFTER)
    assert next(iter(receiver.known.values())).value == 70
    assert len(receiver.messages) == 2


def test_only_the_apps_that_are_named() -> None:
    chosen = replace(NOTICE, apps=("a",))
    assert chosen.is_problem(reading(11, "a"))
    assert not chosen.is_problem(reading(11, "b"))
    assert chosen.is_problem(reading(1, "controller", NoticeCondition.CERTIFICATE))


def test_thresholds() -> None:
    assert checked_thresholds({}, of_controller=True) == {each: limits.usual for each, limits in LIMITS.items()}
    others = checked_thresholds({}, of_controller=False)
    assert set(others) == {each for each, limits in LIMITS.items() if not limits.of_controller}
    assert checked_thresholds({"queue-size": 0, "error-share": 0.5}, of_controller=False) == {
        NoticeCondition.QUEUE_SIZE: 100,
        NoticeCondition.ERROR_SHARE: 0.5,
    }
    for wrong in ({"disk-full": 90}, {"x": 1}, {"error-share": 101}, {"queue-size": -1}, {"queue-size": float("nan")}):
        with pytest.raises(InvalidArgument, match="thresholds"):
            checked_thresholds(wrong, of_controller=False)


def test_mailboxes() -> None:
    plain = checked_mailbox("smtp://mail.test", ["a@b.c"], None, None)
    assert (plain.port, plain.encrypted, plain.sender, plain.user) == (587, False, "a@b.c", None)
    whole = checked_mailbox("smtps://me%40x@mail.test", ["a@b.c", "d@e.f"], "from@x.y", "secret")
    assert (whole.port, whole.encrypted, whole.user, whole.password) == (465, True, "me@x", "secret")
    assert "secret" not in repr(whole)
    for url, to, sender, password in (
        ("http://mail.test", ["a@b.c"], None, None),
        ("smtp://", ["a@b.c"], None, None),
        ("smtp://h:99999", ["a@b.c"], None, None),
        ("smtp://u:secret@h", ["a@b.c"], None, None),
        ("smtp://h", [], None, None),
        ("smtp://h", ["a@b.c"] * 21, None, None),
        ("smtp://h", ["a@b.c\r\nBcc: x@y.z"], None, None),
        ("smtp://h", ["a@b.c"], "no address", None),
        ("smtp://h", ["a@b.c"], None, "secret"),
        ("smtp://u@h", ["a@b.c"], None, ""),
    ):
        with pytest.raises(InvalidArgument) as caught:
            checked_mailbox(url, to, sender, password)
        assert "secret" not in str(caught.value)


def test_texts() -> None:
    problems = [
        Problem(condition=NoticeCondition.QUEUE_SIZE, subject=f"app-{n}", value=1, detail="many", began_at=NOON)
        for n in range(25)
    ]
    over = replace(problems[0], ended_at=NOON)
    assert headline("me", []) == "fal: a test notice of me"
    assert headline("me", [over]) == "fal: resolved: queue-size of app-0"
    assert headline("me", [*problems, over]) == "fal: 25 firing, 1 resolved in me"
    assert len(lines(problems)) == 21
    assert lines(problems)[-1] == "and 5 more"
