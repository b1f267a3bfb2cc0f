"""Which runner gets a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

# Headers of an app's answers that speak to the platform.
RUNNER_HINTS = "x-fal-runner-hints"
HEALTH_CHECK = "x-fal-runner-health-check"
# Of a header that is longer the rest is left out: a runner must not fill the controller's memory.
MOST_HINT_CHARACTERS = 4096


class Outcome(StrEnum):
    """How a request on a runner ended, and so what becomes of the runner.

    DONE: it stays. STOP_RUNNER: it asked to be stopped. RUNNER_FAILED: it answered 503 or its connection broke: it is
    killed. TIMED_OUT: the request took longer than request_timeout: killed too. CLIENT_GONE: the caller left; it stays.
    """

    DONE = "done"
    STOP_RUNNER = "stop_runner"
    RUNNER_FAILED = "runner_failed"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"


def error_type_of(status: int) -> str:
    """The published word for an app's answer of 400 and above that has none of its own."""
    if status < 500:
        return "bad_request"
    return "request_timeout" if status == 504 else "runner_server_error"


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """A runner as the router sees it; mutable, because it changes with every request.

    Attributes:
        open: whether requests may be sent to it; closed once it is to stop.
        hints: the words that it said it is warm for.
        answered: whether the first byte of any answer of its has come.
    """

    runner_id: str
    revision_id: str = ""
    host: str
    port: int
    in_flight: int = 0
    open: bool = True
    hints: frozenset[str] = field(default_factory=frozenset[str])
    answered: bool = False


def parse_hints(value: str) -> frozenset[str]:
    """The words of an X-Fal-Runner-Hints header: what a runner is warm for now, instead of what it said before."""
    words = (word.strip() for word in value[:MOST_HINT_CHARACTERS].split(","))
    return frozenset(word for word in words if word)


def pick(slots: Iterable[Slot], max_multiplexing: int, hint: str | None = None) -> Slot | None:
    """The runner with the fewest requests in flight among those with room; a matching hint goes first.

    Returns:
        None where every runner is full or closed: hints are preferred, never waited for.
    """
    best: Slot | None = None
    warm: Slot | None = None
    fewest = fewest_warm = max_multiplexing
    for slot in slots:
        load = slot.in_flight
        if not slot.open:
            continue
        if load < fewest:
            best, fewest = slot, load
        if hint is not None and load < fewest_warm and hint in slot.hints:
            warm, fewest_warm = slot, load
    return best if warm is None else warm
