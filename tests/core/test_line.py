"""The order in which waiting requests start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.fair_queue import FairQueue, QueueEntry
from fal_server.core.queue import Priority
from tests.fakes.domain import at

LOW = Priority.LOW


def entry(number: int, caller: str | None = "k", priority: Priority = Priority.NORMAL, **changes) -> QueueEntry:
    return QueueEntry(
        request_id=f"r{number:03}",
        number=number,
        caller=caller,
        priority=priority,
        created_at=changes.pop("created_at", at(number)),
        **changes,
    )


def line_of(*entries: QueueEntry) -> FairQueue:
    line = FairQueue()
    for one in entries:
        line.add(one, at(0))
    return line


def id_of(found: QueueEntry | None) -> str | None:
    return found and found.request_id


def taken(line: FairQueue, now: float = 1000) -> list[str]:
    found = []
    while (one := line.take(at(now))) is not None:
        found.append(one.request_id)
    return found


def test_the_oldest_goes_first():
    assert taken(line_of(entry(2), entry(1), entry(3))) == ["r001", "r002", "r003"]


def test_normal_goes_before_low():
    assert taken(line_of(entry(1, priority=LOW), entry(2), entry(3, priority=LOW), entry(4))) == [
        "r002", "r004", "r001", "r003",
    ]  # fmt: skip


def test_callers_take_turns():
    many = [entry(n, "busy") for n in range(1, 5)]
    assert taken(line_of(*many, entry(8, "other"), entry(9, None))) == [
        "r001", "r008", "r009", "r002", "r003", "r004",
    ]  # fmt: skip


def test_a_caller_who_was_served_waits_for_a_newcomer():
    line = line_of(entry(1, "a"), entry(2, "a"), entry(3, "a"))
    assert id_of(line.take(at(10))) == "r001"
    line.add(entry(9, "b"), at(10))
    assert taken(line) == ["r009", "r002", "r003"]


def test_a_resting_request_is_counted_but_not_taken_and_keeps_its_age():
    line = line_of(entry(1, not_before=at(50)), entry(2))
    assert len(line) == 2
    assert line.next_change_at() == at(50)
    assert id_of(line.take(at(10))) == "r002"
    assert line.take(at(10)) is None
    line.add(entry(3), at(10))
    assert id_of(line.take(at(50))) == "r001"
    assert taken(line) == ["r003"]


def test_overdue_requests_are_taken_out_once():
    line = line_of(entry(1, start_deadline=at(20)), entry(2), entry(3, start_deadline=at(30)))
    assert line.overdue(at(19)) == []
    assert line.next_change_at() == at(20)
    assert [one.request_id for one in line.overdue(at(25))] == ["r001"]
    assert line.overdue(at(25)) == []
    assert taken(line) == ["r002", "r003"]
    assert line.next_change_at() is None


def test_what_is_removed_is_gone_and_can_come_back():
    line = line_of(entry(1), entry(2, not_before=at(5), start_deadline=at(9)))
    assert id_of(line.remove("r002")) == "r002"
    assert line.remove("r002") is None
    assert line.overdue(at(100)) == []
    line.add(entry(2), at(10))
    line.add(entry(2), at(10))
    assert len(line) == 2
    assert taken(line) == ["r001", "r002"]
    assert taken(line) == []


def test_counts():
    line = line_of(entry(1, "a"), entry(2, "a", LOW), entry(3, None))
    assert line.eligible(at(2)) == 2
    assert "r001" in line
    assert "r009" not in line
    assert line.position("r009") == 0


entries = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from(list(Priority)),
        st.booleans(),
    ),
    max_size=25,
)


@given(entries, st.integers(0, 10))
def test_everything_is_taken_exactly_once_and_positions_tell_when(made, served_before):
    line = FairQueue()
    for number, (seconds, caller, priority, rests) in enumerate(made):
        rest = at(seconds) if rests else None
        line.add(entry(number, caller, priority, created_at=at(seconds), not_before=rest), at(0))
    order = [one.request_id for _ in range(served_before) if (one := line.take(at(1000))) is not None]
    line._wake(at(1000))
    positions = {one.request_id: line.position(one.request_id) for one in line}
    rest_of_it = taken(line)
    assert sorted(order + rest_of_it) == [f"r{n:03}" for n in range(len(made))]
    assert [positions[request_id] for request_id in rest_of_it] == list(range(len(rest_of_it)))


@given(entries)
def test_nobody_is_overtaken_by_the_same_caller_twice(made):
    line = FairQueue()
    callers = {}
    for number, (seconds, caller, _, _) in enumerate(made):
        line.add(entry(number, caller, created_at=at(seconds)), at(0))
        callers[f"r{number:03}"] = caller
    waiting = {caller: list(callers.values()).count(caller) for caller in callers.values()}
    since: dict[object, list[object]] = {caller: [] for caller in waiting}
    for request_id in taken(line):
        served = callers[request_id]
        for caller, seen in since.items():
            if caller != served and waiting[caller]:
                seen.append(served)
                assert len(seen) == len(set(seen)), f"{served} was served twice while {caller} waited"
        waiting[served] -= 1
        since[served] = []
