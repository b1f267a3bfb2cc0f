"""In the end, only what revisions or living runners need is left."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.retention import Generation, Needed, in_use_since, superfluous
from fal_server.core.revisions import AppFile, EnvironmentSpec, Payload
from fal_server.core.runners import RunnerState
from tests.fakes.domain import at, make_revision, make_runner

NOW, DAY = 100 * 86400, 86400
BEFORE = at(NOW - 7 * DAY)


def built(number: int, finished: int, used: int | None = None, *, env: str = "e", usable: bool = True) -> Generation:
    return Generation(
        env_id=env,
        name=f"{env}-{number}",
        number=number,
        usable=usable,
        finished_at=at(finished),
        used_at=at(finished if used is None else used),
    )


def gone(generations: list[Generation], env_ids: set[str], in_use: dict[str, datetime] | None = None) -> list[str]:
    found = superfluous(generations, Needed(env_ids=frozenset(env_ids)), in_use or {}, BEFORE)
    return [generation.name for generation in found]


def test_what_no_revision_names_goes_when_it_was_not_used_for_long() -> None:
    assert gone([built(1, 0)], set()) == ["e-1"]
    assert gone([built(1, 0)], {"e"}) == []
    assert gone([built(1, 0, NOW - 6 * DAY)], set()) == []
    assert gone([built(1, 0)], set(), {"e": at(5)}) == [], "a runner lives"


def test_an_older_generation_goes_when_nobody_can_have_it() -> None:
    pair = [built(1, 0, 10 * DAY), built(2, 20 * DAY)]
    assert gone(pair, {"e"}) == ["e-1"]
    assert gone(pair, {"e"}, {"e": at(19 * DAY)}) == [], "it was ordered before the newer one was there"
    assert gone(pair, {"e"}, {"e": at(21 * DAY)}) == ["e-1"]
    assert gone([built(1, 0), built(2, NOW - DAY)], {"e"}) == [], "the newer one is too young"
    assert gone(pair, set()) == ["e-1", "e-2"]


def test_what_another_version_made_stays_while_its_runners_may_live() -> None:
    pair = [built(1, 0, 30 * DAY, usable=False), built(2, 20 * DAY, usable=False)]
    assert gone(pair, {"e"}) == ["e-1", "e-2"]
    assert gone(pair, {"e"}, {"e": at(29 * DAY)}) == []
    later = [built(1, 0), built(2, 20 * DAY, usable=False)]
    assert gone(later, {"e"}, {"e": at(21 * DAY)}) == []
    # An older version used it again, after the newer one was built.
    assert gone([built(1, 0, 30 * DAY, usable=False), built(2, 20 * DAY)], {"e"}, {"e": at(29 * DAY)}) == []


def test_what_revisions_name() -> None:
    spec = EnvironmentSpec(kind="virtualenv", configuration={"requirements": ["x"]})
    one = make_revision(
        "r1",
        environments=(spec,),
        function=Payload(method="cloudpickle", blob="f"),
        setup=Payload(method="cloudpickle", blob="s"),
        files=(AppFile(hash="0" * 64, relative_path="a"),),
    )
    needed = Needed(blobs=frozenset({"before"})).plus([one])
    assert (needed.blobs, needed.files, needed.env_ids) == ({"before", "f", "s"}, {"0" * 64}, {spec.env_id})


times = st.integers(0, 100).map(lambda day: day * DAY)


@given(
    builds=st.lists(st.tuples(times, st.booleans()), min_size=1, max_size=6),
    orders=st.lists(st.tuples(times, st.booleans()), max_size=6),
    named=st.booleans(),
)
def test_a_runner_s_environment_and_a_revision_s_never_go(
    builds: list[tuple[int, bool]], orders: list[tuple[int, bool]], named: bool
) -> None:
    """Builds and orders come in any order. A runner gets the newest build of its time, and ends or lives on."""
    finished = sorted(builds)
    generations = [
        built(number, finished_at, usable=usable) for number, (finished_at, usable) in enumerate(finished, 1)
    ]
    runners, theirs = [], set()
    for number, (ordered, lives) in enumerate(orders):
        there = [g for g in generations if g.finished_at <= at(ordered)]
        if not there:
            continue
        got = there[-1]
        place = generations.index(got)
        generations[place] = built(
            got.number,
            int((got.finished_at - at(0)).total_seconds()),
            max(ordered, int((got.used_at - at(0)).total_seconds())),
            usable=got.usable,
        )
        if lives:
            runners.append(make_runner(f"x{number}", RunnerState.IDLE, ordered_at=at(ordered)))
            theirs.add(got.name)
    found = superfluous(
        generations,
        Needed(env_ids=frozenset({"e"} if named else ())),
        in_use_since(runners, {"r1": "e"}),
        BEFORE,
    )
    names = {generation.name for generation in found}
    assert names.isdisjoint(theirs)
    usable = [generation for generation in generations if generation.usable]
    if named and usable:
        assert usable[-1].name not in names
    assert all(max(g.used_at, g.finished_at) < BEFORE for g in found)
    if not named and not runners:
        old = {g.name for g in generations if max(g.used_at, g.finished_at) < BEFORE}
        young = {g.name for g in generations if g.usable and g.finished_at >= BEFORE}
        assert young or names == old


def test_a_runner_that_was_not_ordered_holds_nothing() -> None:
    waiting = make_runner("w", RunnerState.PENDING)
    assert in_use_since([waiting], {"r1": "e"}) == {}
    ordered = make_runner("o", RunnerState.PENDING, ordered_at=at(9))
    later = make_runner("l", RunnerState.IDLE, ordered_at=at(12))
    assert in_use_since([later, ordered, make_runner("n", revision_id="other")], {"r1": "e"}) == {"e": at(9)}
