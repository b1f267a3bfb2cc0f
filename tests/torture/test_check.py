"""The checker finds every kind of broken promise. It finds none in a correct run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.torture.check import RULES, check
from tests.torture.history import Event, History, read


def event(kind: str, at: float = 0, **fields: Any) -> Event:
    return {"kind": kind, "at": at, **fields}


def request(tag: str, at: float, **fields: Any) -> Event:
    usual = {"mode": "direct", "app": "a", "status": 200, "runner": "r", "revision": 1, "calm": 1, "done_at": at + 1}
    return event("request", at, tag=tag, **(usual | fields))


GOOD: list[Event] = [
    event("scale", app="a", most=2),
    event("deploy", 1, app="a", revision=1, done_at=2, ok=True, fails=False),
    event("state", 2, runner="r", state="pending"),
    event("state", 3, runner="r", state="idle"),
    event("sample", 4, serving={"a": 3}, ghosts=[]),
    request("one", 5),
    request("two", 6, mode="queued", status=200, runner=None, revision=None),
    event("accepted", 6, tag="two"),
    event("outcome", 9, tag="two", state="COMPLETED"),
    event("fault", 10, what="controller killed", until=12),
    request("three", 9.5, done_at=11, status=None, error="cut off", calm=None),
    event("begin", 5, tag="one", runner="r"),
    event("begin", 7, tag="two", runner="r"),
    event("begin", 8, tag="two", runner="s"),
    event("runner", runner="r", unrouted_at=20.0, stopping_at=21.0, ended_at=22.0),
    event("runner", runner="s", unrouted_at=None, stopping_at=None, ended_at=22.0),
    event("lines", runner="r", count=4, first=1, last=4),
    event("serves", app="a", revision=1),
    event("left", groups=[], directories=[], rows=[]),
]

PLANTED: dict[str, tuple[list[Event], str]] = {
    "a queued request that came to nothing": ([event("accepted", tag="lost")], "came to nothing"),
    "two outcomes": ([event("outcome", tag="two", state="COMPLETED")], "['COMPLETED', 'COMPLETED']"),
    "an answer twice": ([request("one", 5)], "has 2 outcomes"),
    "a direct request that began twice": ([event("begin", tag="one", runner="s")], "began 2 times"),
    "no answer": ([request("x", 30, status=None, error="hung", calm=None)], "got no answer (hung)"),
    "an answer out of nothing": ([request("x", 15)], "x: answered by r, whose log lacks 1 lines and owns to 0"),
    "a request after draining": (
        [request("x", 20.5), event("begin", tag="x", runner="r")],
        "was sent 0.500 s after r drained",
    ),
    "a request after the end": ([request("x", 23, runner="s"), event("begin", tag="x", runner="s")], "after s drained"),
    "too many runners": ([event("sample", serving={"a": 4}, ghosts=[])], "had 4 runners"),
    "a ghost": ([event("sample", 30, serving={}, ghosts=["r"])], "was TERMINATED, and lived at 30.000"),
    "a state that moved down": ([event("state", 31, runner="r", state="setup")], "moved from idle to setup"),
    "a failure in the calm": (
        [request("x", 15, status=503, runner=None, revision=None)],
        "failed (503) in calm phase 1",
    ),
    "a deploy that was forgotten": (
        [event("deploy", 3, app="a", revision=2, done_at=4, ok=True, fails=False)],
        "ended on revision 1, 2 was acknowledged",
    ),
    "an old revision that serves": (
        [event("deploy", 3, app="a", revision=2, done_at=4, ok=True, fails=False)],
        "was served by revision 1, 2 was acknowledged",
    ),
    "a broken revision that serves": (
        [event("deploy", 30, app="a", revision=1, done_at=31, ok=False, fails=True)],
        "which cannot start",
    ),
    "a broken deploy that was praised": (
        [event("deploy", 30, app="a", revision=3, done_at=31, ok=True, fails=True)],
        "was acknowledged, though it cannot start",
    ),
    "a gap in a log": ([event("lines", runner="s", count=4, first=1, last=5)], "4 lines from 1 to 5"),
    "a log without its beginning": ([event("lines", runner="s", count=4, first=2, last=5)], "4 lines from 2 to 5"),
    "a copy that starts": (
        [event("copy", adopted=False, refused=False, said="it started", foreign=[])],
        "not refused as one: it started",
    ),
    "a copy that takes runners": (
        [event("copy", adopted=True, refused=False, said="it started", foreign=["r1"])],
        "took the original's runners r1",
    ),
    "a copy that cannot be adopted": (
        [event("copy", adopted=True, refused=True, said="Traceback", foreign=[])],
        "a copy was not adopted: Traceback",
    ),
    "a process at the end": ([event("left", groups=["r"], directories=[], rows=[])], "left at the end, groups: r"),
    "a directory at the end": ([event("left", groups=[], directories=["r"], rows=[])], "directories: r"),
    "a row at the end": ([event("left", groups=[], directories=[], rows=["r"])], "rows: r"),
}


def test_a_run_that_kept_every_promise() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    planted, words = PLANTED[name]
    assert any(words in sentence for sentence in check([*GOOD, *planted])), check([*GOOD, *planted])


def test_lines_that_are_said_to_be_lost_are_no_violation() -> None:
    lost = [request("x", 15), request("y", 15), event("dropped", runner="r", lines=1)]
    assert [s for s in check([*GOOD, *lost]) if "owns to 1" in s]
    assert check([*GOOD, *lost, event("dropped", runner="r", lines=1)]) == []


def test_every_rule_has_a_planted_violation() -> None:
    found = {rule for rule in RULES for planted, _ in PLANTED.values() if list(rule([*GOOD, *planted]))}
    assert found == set(RULES)


def test_a_run_that_was_cut_off_is_no_success() -> None:
    assert check([e for e in GOOD if e["kind"] != "left"]) == ["the run did not come to its end"]


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.note("fault", at=1.5, what="x", until=2.5)
    history.close()
    assert read(history.path) == history.events == [{"kind": "fault", "at": 1.5, "what": "x", "until": 2.5}]
