"""Choose the runner that gets a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from fal_server.core.addresses import RunnerAddress

# Headers of an app's answers that are meant for the platform.
RUNNER_HINTS = "x-fal-runner-hints"
HEALTH_CHECK = "x-fal-runner-health-check"
# The rest of a longer header is ignored, so that no runner can fill the controller's memory.
MOST_HINT_CHARACTERS = 4096


class Outcome(StrEnum):
    """How a request on a runner ended, which decides what happens to the runner.

    DONE and CLIENT_GONE: it stays; after CLIENT_GONE it may still work on the request. STOP_RUNNER: it asked to be
    stopped. It is killed after RUNNER_FAILED (its connection broke), UNAVAILABLE (it answered 503) and TIMED_OUT (the
    request took longer than request_timeout).
    """

    DONE = "done"
    STOP_RUNNER = "stop_runner"
    RUNNER_FAILED = "runner_failed"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"


def error_type_of(status: int) -> str:
    """Return the published error type for an app's answer of 400 or above that names none."""
    if status < 500:
        return "bad_request"
    return "request_timeout" if status == 504 else "runner_server_error"


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """A runner as the router sees it; mutable, because it changes with every request.

    Attributes:
        host, port, gate_key: see RunnerAddress.
        open: whether requests may be sent to it; closed once it is to stop.
        hints: what it last said that it is warm for.
        answered: whether the first byte of any of its answers has come.
        shared: whether several requests were on it when it failed, so that none of them can be blamed.
    """

    runner_id: str
    revision_id: str = ""
    host: str
    port: int
    gate_key: str = field(default="", repr=False)
    in_flight: int = 0
    open: bool = True
    hints: frozenset[str] = field(default_factory=frozenset[str])
    answered: bool = False
    shared: bool = False

    @property
    def address(self) -> RunnerAddress:
        """Where its app is reached."""
        return RunnerAddress(self.host, self.port, self.gate_key)


def parse_hints(value: str) -> frozenset[str]:
    """Return the values of an X-Fal-Runner-Hints header, which replace those of earlier answers."""
    hints = (hint.strip() for hint in value[:MOST_HINT_CHARACTERS].split(","))
    return frozenset(hint for hint in hints if hint)


def pick(slots: Iterable[Slot], max_multiplexing: int, hint: str | None = None) -> Slot | None:
    """Return the runner with room that has the fewest requests; one with a matching hint goes first.

    Returns:
        None if every runner is full or closed. A hint is a preference: no request waits for it.
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
