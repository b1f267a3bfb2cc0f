"""Checks the promises over a history. It is a pure function from events to broken promises.

Events, each with `kind` and `at`:

    scale      app, most                          from now on, at most this many runners
    fault      what, until                        a fault of processes or the disk, until `until`
    deploy     app, revision, done_at, ok, fails  ok: it was acknowledged; fails: its runners cannot start
    request    tag, app, mode, done_at, status, revision, runner, calm
               direct: status is None without an answer. calm: the phase in which it was sent and answered, or None
    accepted   tag                                a queued request was acknowledged
    outcome    tag, state                         the end of a queued request
    begin      tag, runner                        a runner started a request (from its log)
    state      runner, state                      seen in the database
    sample     serving {app: runners that serve or start}, ghosts [ids of runners that live after their end]
    runner     runner, app, unrouted_at, stopping_at, ended_at
    lines      runner, count, first, last         of its log in the database
    dropped    runner, lines                      so many lines were lost, says the log (the disk was full)
    serves     app, revision                      the revision of an app at the end
    left       groups, directories, rows          what was left at the end
    copy       until, adopted, refused, said, foreign
               a start on a copy of the state directory, with --adopt-copy or without; foreign: the original's runners
               that it takes for its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from fal_server.composition.clock import SLEW
from fal_server.core.runners import RANK, RunnerState
from tests.torture.history import Event, of_kind

# A request sent this long before a runner's drain was stored may already have had its slot.
CLOCK_SECONDS = 0.005


def check(events: Sequence[Event]) -> list[str]:
    """Return a description of every broken promise."""
    return [sentence for rule in RULES for sentence in rule(events)]


def one_outcome(events: Sequence[Event]) -> Iterator[str]:
    """Every accepted request has exactly one outcome. A direct one starts at most once."""
    begins = Counter(event["tag"] for event in of_kind(events, "begin"))
    outcomes: dict[str, list[str]] = defaultdict(list)
    for event in of_kind(events, "outcome"):
        outcomes[event["tag"]].append(event["state"])
    for event in of_kind(events, "accepted"):
        if outcomes[event["tag"]] != ["COMPLETED"]:
            yield f"queued request {event['tag']} was accepted and came to {outcomes[event['tag']] or 'nothing'}"
    for event in of_kind(events, "request"):
        if event["mode"] == "direct" and begins[event["tag"]] > 1:
            yield f"direct request {event['tag']} began {begins[event['tag']]} times"
    answers = Counter(event["tag"] for event in of_kind(events, "request"))
    yield from (f"request {tag} has {count} outcomes" for tag, count in answers.items() if count > 1)


def every_call_is_answered(events: Sequence[Event]) -> Iterator[str]:
    """A direct request gets an answer. It may get none if the controller died or was stopped meanwhile."""
    dead = [event for event in of_kind(events, "fault") if event["what"].startswith("controller")]
    for event in of_kind(events, "request"):
        excused = any(fault["at"] <= event["done_at"] and event["at"] <= fault["until"] for fault in dead)
        if event["mode"] == "direct" and event["status"] is None and not excused:
            yield f"request {event['tag']} got no answer ({event.get('error')}), though the controller lived"


def an_answer_was_worked_for(events: Sequence[Event]) -> Iterator[str]:
    """A request answered with 200 started on the named runner. Its log has the line, or reports lost lines."""
    started = {(event["tag"], event["runner"]) for event in of_kind(events, "begin")}
    # The last output of a runner may die with its shim, before it is on disk.
    lost = {event["runner"] for event in of_kind(events, "fault") if event.get("loses_lines")}
    missing: dict[str, list[str]] = defaultdict(list)
    for event in of_kind(events, "request"):
        answered = event["mode"] == "direct" and event["status"] == 200 and event["runner"] not in lost
        if answered and (event["tag"], event["runner"]) not in started:
            missing[event["runner"]].append(event["tag"])
    counted: Counter[str] = Counter()
    for event in of_kind(events, "dropped"):
        counted[event["runner"]] += event["lines"]
    for runner, tags in missing.items():
        if len(tags) > counted[runner]:
            lacks = f"lacks {len(tags)} lines and owns to {counted[runner]}"
            yield f"{', '.join(tags[:3])}{', ...' if len(tags) > 3 else ''}: answered by {runner}, whose log {lacks}"


def nothing_begins_after_draining(events: Sequence[Event]) -> Iterator[str]:
    """A request sent after a runner's acknowledged drain never starts on it."""
    sent = {event["tag"]: event["at"] for event in of_kind(events, "request") if event["mode"] == "direct"}
    steps = [event for event in of_kind(events, "fault") if event["what"] == "clock stepped"]
    acknowledged: dict[str, float] = {}
    for event in of_kind(events, "runner"):
        times = [event[name] for name in ("unrouted_at", "stopping_at", "ended_at") if event[name] is not None]
        if times:
            acknowledged[event["runner"]] = min(times)
    for event in of_kind(events, "begin"):
        at, unrouted_at = sent.get(event["tag"]), acknowledged.get(event["runner"])
        slack = CLOCK_SECONDS + max((_drift(step, unrouted_at or 0.0) for step in steps), default=0.0)
        if at is not None and unrouted_at is not None and at > unrouted_at + slack:
            late = f"{at - unrouted_at:.3f} s"
            yield f"request {event['tag']} was sent {late} after {event['runner']} drained, and began there"


def _drift(step: Event, at: float) -> float:
    """Return how far the controller's time may differ from ours. It follows a step by a tenth of the elapsed time."""
    lasted = float(step["until"] - step["at"])
    return SLEW * lasted if step["at"] <= at <= step["until"] + 2 * lasted + 1 else 0.0


def never_too_many(events: Sequence[Event]) -> Iterator[str]:
    """At most max_concurrency runners and one replacement serve or start."""
    most: dict[str, int] = {}
    said: set[str] = set()
    for event in events:
        if event["kind"] == "scale":
            # A lower limit ends no busy runner, so the highest one counts.
            most[event["app"]] = max(event["most"], most.get(event["app"], 0))
        elif event["kind"] == "sample":
            for app, count in event["serving"].items():
                if count > most.get(app, 0) + 1 and app not in said:
                    said.add(app)
                    yield f"app {app} had {count} runners at {event['at']:.3f}: {most.get(app)} and one are the most"


def the_ended_are_dead(events: Sequence[Event]) -> Iterator[str]:
    """No process of a TERMINATED runner is alive."""
    said: set[str] = set()
    for event in of_kind(events, "sample"):
        for runner in event["ghosts"]:
            if runner not in said:
                said.add(runner)
                yield f"runner {runner} was TERMINATED, and lived at {event['at']:.3f}"


def states_move_up(events: Sequence[Event]) -> Iterator[str]:
    """No observed state moves down."""
    last: dict[str, str] = {}
    for event in of_kind(events, "state"):
        before = last.get(event["runner"])
        if before is not None and RANK[RunnerState(event["state"])] < RANK[RunnerState(before)]:
            yield f"runner {event['runner']} moved from {before} to {event['state']}"
        last[event["runner"]] = event["state"]


def calm_loses_nothing(events: Sequence[Event]) -> Iterator[str]:
    """During rolling deploys, scaling and controlled stops every direct request succeeds."""
    for event in of_kind(events, "request"):
        if event["mode"] == "direct" and event["calm"] is not None and event["status"] != 200:
            words = event.get("error") or event["status"]
            yield f"request {event['tag']} failed ({words}) in calm phase {event['calm']}"


def deploys_last(events: Sequence[Event]) -> Iterator[str]:
    """An acknowledged deploy is never forgotten. A revision whose runners cannot start never serves."""
    deploys = list(of_kind(events, "deploy"))
    broken = {(event["app"], event["revision"]) for event in deploys if event["fails"]}
    good = [event for event in deploys if event["ok"] and not event["fails"]]
    yield from (
        f"the deploy of revision {event['revision']} of {event['app']} was acknowledged, though it cannot start"
        for event in deploys
        if event["ok"] and event["fails"]
    )
    for event in of_kind(events, "request"):
        if event.get("revision") is None or event["mode"] != "direct":
            continue
        if (event["app"], event["revision"]) in broken:
            yield f"request {event['tag']} was served by revision {event['revision']}, which cannot start"
        known = [d["revision"] for d in good if d["app"] == event["app"] and d["done_at"] <= event["at"]]
        if known and event["revision"] < max(known):
            yield f"request {event['tag']} was served by revision {event['revision']}, {max(known)} was acknowledged"
    for event in of_kind(events, "serves"):
        known = [d["revision"] for d in good if d["app"] == event["app"]]
        if known and event["revision"] < max(known):
            yield f"app {event['app']} ended on revision {event['revision']}, {max(known)} was acknowledged"


def logs_have_no_gap(events: Sequence[Event]) -> Iterator[str]:
    """The lines of every runner are numbered from 1 without a gap."""
    for event in of_kind(events, "lines"):
        if event["first"] != 1 or event["last"] != event["count"]:
            yield f"the log of {event['runner']} has {event['count']} lines from {event['first']} to {event['last']}"


def copies_are_refused(events: Sequence[Event]) -> Iterator[str]:
    """A controller on a copy is refused. If it is allowed, it starts without the original's runners."""
    for event in of_kind(events, "copy"):
        if event["adopted"]:
            if event["foreign"]:
                yield f"a copy took the original's runners {', '.join(event['foreign'])}"
            # A copy of a database in use may be damaged, which is reported.
            if event["refused"] and ("Error: " not in event["said"] or "--adopt-copy" in event["said"]):
                yield f"a copy was not adopted: {event['said']}"
        elif not event["refused"] or "--adopt-copy" not in event["said"]:
            yield f"a copy was not refused as one: {event['said']}"


def nothing_is_left(events: Sequence[Event]) -> Iterator[str]:
    """At the end no runner's process, directory or open row is left."""
    left = list(of_kind(events, "left"))
    if not left:
        yield "the run did not come to its end"
    for event in left:
        for what in ("groups", "directories", "rows"):
            if event[what]:
                yield f"left at the end, {what}: {', '.join(event[what])}"


Rule = Callable[[Sequence[Event]], Iterator[str]]
RULES: tuple[Rule, ...] = (
    one_outcome,
    every_call_is_answered,
    an_answer_was_worked_for,
    nothing_begins_after_draining,
    never_too_many,
    the_ended_are_dead,
    states_move_up,
    calm_loses_nothing,
    deploys_last,
    logs_have_no_gap,
    copies_are_refused,
    nothing_is_left,
)
