"""Runners: the processes that serve apps, and the requests about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.app import app_name
from fal_grpc.adapter.values import JSON, count, mapping, moment, timestamp
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import runner_pb2


class RunnerState(StrEnum):
    """Where a runner is in its life. CRASH_BACKOFF is FAILURE_DELAY on the wire; DEAD is an old name of TERMINATED."""

    RUNNING = "RUNNING"
    PENDING = "PENDING"
    SETUP = "SETUP"
    DOCKER_PULL = "DOCKER_PULL"
    DEAD = "DEAD"
    DRAINING = "DRAINING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    IDLE = "IDLE"
    CRASH_BACKOFF = "CRASH_BACKOFF"
    FAILURE_DELAY = "CRASH_BACKOFF"  # two names of one state
    UNKNOWN = "UNKNOWN"

    @classmethod
    def _missing_(cls, value: object) -> RunnerState | None:
        return cls.CRASH_BACKOFF if value == "FAILURE_DELAY" else None


class ReplaceState(StrEnum):
    """Whether another runner takes this one's place."""

    NO_REPLACE = "NO_REPLACE"
    WILL_REPLACE = "WILL_REPLACE"
    DID_REPLACE = "DID_REPLACE"
    UNKNOWN = "UNKNOWN"


class _Received:
    """Where a received runner keeps its message until it is read: most of what a list returns is never looked at."""

    __slots__ = ("_message",)
    _message: runner_pb2.RunnerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerStateChange:
    """One step in a runner's life.

    Attributes:
        at: when it was taken; aware.
        state: from then on.
        reason: why, in words; may be empty.
    """

    at: datetime
    state: RunnerState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerStartPhases:
    """How long each part of a runner's start took, in seconds; None for a part that is not over.

    Attributes:
        waiting: until its start was ordered on a node.
        environment: from that to its process: the environment found or built, code and secrets collected.
        setup: from that to where it could take requests.
        first_byte: from its first request to the first byte of the answer.
    """

    waiting: float | None = None
    environment: float | None = None
    setup: float | None = None
    first_byte: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo(_Received):
    """A runner.

    What the published client has comes first; what follows `replacement` is None or empty where a controller does not
    tell. A received one is converted when it is first read, so a list of thousands costs little.

    Attributes:
        expiration_countdown: seconds until it goes if no further request comes; None while it serves.
        uptime: since its process was started.
        external_metadata: more about it, free in form; `leases` lists the requests in flight.
        revision: what it serves.
        alias: name of the app that it serves.
        state_reason: why it is in its state, in words.
        created_at: when it was decided that there be this runner. This and the other moments are aware.
        ready_at: when it first could take requests.
        ended_at: when its process was gone.
        exit_code: of its process; 128 and the signal's number for one that a signal ended.
        node: the machine that it is on.
        state_changes: what it went through, the oldest first. This and `start_phases` are known of a runner that was
            asked for by its id, not of those in a list.
        start_phases: how long each part of its start took.
    """

    runner_id: str
    in_flight_requests: int
    expiration_countdown: int | None
    uptime: timedelta
    external_metadata: dict[str, JSON] = field(hash=False)
    revision: str
    alias: str
    state: RunnerState
    machine_type: str
    replacement: ReplaceState = ReplaceState.NO_REPLACE
    state_reason: str | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    environment_name: str = ""
    exit_code: int | None = None
    node: str | None = None
    state_changes: tuple[RunnerStateChange, ...] = ()
    start_phases: RunnerStartPhases | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Convert what was not read yet. Called only for a field that has no value."""
            convert = _GROUPS.get(name)
            if convert is None:
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            convert(self, self._message)
            return object.__getattribute__(self, name)


STATES: Mapping[int, RunnerState] = {
    0: RunnerState.RUNNING,
    1: RunnerState.PENDING,
    2: RunnerState.SETUP,
    3: RunnerState.DEAD,
    4: RunnerState.DOCKER_PULL,
    5: RunnerState.DRAINING,
    6: RunnerState.TERMINATING,
    7: RunnerState.TERMINATED,
    8: RunnerState.IDLE,
    9: RunnerState.CRASH_BACKOFF,
}
REPLACEMENTS: Mapping[int, ReplaceState] = {
    0: ReplaceState.NO_REPLACE,
    1: ReplaceState.WILL_REPLACE,
    2: ReplaceState.DID_REPLACE,
}

# The slots' own setters: a frozen dataclass has no other way in, and these are twice as fast as object.__setattr__.
_SET = {name: RunnerInfo.__dict__[name].__set__ for name in RunnerInfo.__dataclass_fields__}
_KEEP = _Received.__dict__["_message"].__set__
_set_id, _set_requests, _set_countdown = _SET["runner_id"], _SET["in_flight_requests"], _SET["expiration_countdown"]
_set_uptime, _set_revision, _set_alias = _SET["uptime"], _SET["revision"], _SET["alias"]
_set_state, _set_type, _set_replacement = _SET["state"], _SET["machine_type"], _SET["replacement"]


def _fill_published(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    _set_id(info, message.runner_id)
    _set_requests(info, message.in_flight_requests)
    _set_countdown(info, message.expiration_countdown if message.HasField("expiration_countdown") else None)
    _set_uptime(info, timedelta(seconds=message.uptime))
    _set_revision(info, message.revision)
    _set_alias(info, message.alias)
    # An unset state reads as 0, which is RUNNING: what the published client takes it for.
    _set_state(info, STATES.get(message.state, RunnerState.UNKNOWN))
    _set_type(info, message.machine_type)
    _set_replacement(info, REPLACEMENTS.get(message.replacement, ReplaceState.UNKNOWN))


def _fill_metadata(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    has = message.HasField("external_metadata")
    _SET["external_metadata"](info, mapping(message.external_metadata) if has else {})


def _fill_ours(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    _SET["environment_name"](info, message.environment_name)
    _SET["state_reason"](info, message.state_reason if message.HasField("state_reason") else None)
    _SET["exit_code"](info, message.exit_code if message.HasField("exit_code") else None)
    _SET["node"](info, message.node if message.HasField("node") else None)
    _SET["created_at"](info, moment(message.created_at) if message.HasField("created_at") else None)
    _SET["ready_at"](info, moment(message.ready_at) if message.HasField("ready_at") else None)
    _SET["ended_at"](info, moment(message.ended_at) if message.HasField("ended_at") else None)


def _fill_history(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    _SET["state_changes"](
        info,
        tuple(
            RunnerStateChange(
                at=moment(change.at), state=STATES.get(change.state, RunnerState.UNKNOWN), reason=change.reason
            )
            for change in message.state_changes
        ),
    )
    _SET["start_phases"](info, _phases(message.start_phases) if message.HasField("start_phases") else None)


def _phases(message: runner_pb2.RunnerStartPhases) -> RunnerStartPhases:
    return RunnerStartPhases(
        waiting=message.waiting_seconds if message.HasField("waiting_seconds") else None,
        environment=message.environment_seconds if message.HasField("environment_seconds") else None,
        setup=message.setup_seconds if message.HasField("setup_seconds") else None,
        first_byte=message.first_byte_seconds if message.HasField("first_byte_seconds") else None,
    )


_OURS = ("state_reason", "created_at", "ready_at", "ended_at", "environment_name", "exit_code", "node")
_GROUPS = {
    **dict.fromkeys(RunnerInfo.__dataclass_fields__, _fill_published),
    **dict.fromkeys(_OURS, _fill_ours),
    **dict.fromkeys(("state_changes", "start_phases"), _fill_history),
    "external_metadata": _fill_metadata,
}


def runner_info(message: runner_pb2.RunnerInfo) -> RunnerInfo:
    """A runner, converted when it is read."""
    info = object.__new__(RunnerInfo)
    _KEEP(info, message)
    return info


def runner_infos(message: runner_pb2.ListRunnersResponse | runner_pb2.ListAliasRunnersResponse) -> list[RunnerInfo]:
    """The runners, in the order that the controller gave."""
    return [runner_info(item) for item in message.runners]


def got(message: runner_pb2.GetRunnerResponse) -> RunnerInfo:
    """The runner that was asked for."""
    return runner_info(message.runner)


def list_request(*, since: datetime | None = None, list_pending: bool = True) -> runner_pb2.ListRunnersRequest:
    """A request for runners; `list_pending` is always sent, as the published client does."""
    from fal_grpc.v1 import runner_pb2

    start = None if since is None else timestamp(since, argument="since")
    return runner_pb2.ListRunnersRequest(list_pending=list_pending, start_time=start)


def list_alias_request(
    alias: str, *, since: datetime | None = None, list_pending: bool = True, environment_name: str | None = None
) -> runner_pb2.ListAliasRunnersRequest:
    """A request for the runners of one app."""
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.ListAliasRunnersRequest(
        alias=app_name(alias, environment_name),
        list_pending=list_pending,
        start_time=None if since is None else timestamp(since, argument="since"),
        environment_name=environment_name,
    )


def get_request(runner_id: str) -> runner_pb2.GetRunnerRequest:
    """A request for one runner."""
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.GetRunnerRequest(runner_id=check_runner_id(runner_id))


def stop_request(
    runner_id: str, *, replace_first: bool = False, grace_seconds: int | None = None
) -> runner_pb2.StopRunnerRequest:
    """A request to stop a runner in order.

    Raises:
        ArgumentError: the grace is no whole number, or negative.
    """
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.StopRunnerRequest(
        runner_id=check_runner_id(runner_id),
        replace_first=replace_first,
        grace_seconds=count("grace_seconds", grace_seconds),
    )


def kill_request(runner_id: str) -> runner_pb2.KillRunnerRequest:
    """A request to kill a runner at once."""
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.KillRunnerRequest(runner_id=check_runner_id(runner_id))


def check_runner_id(runner_id: object) -> str:
    """The id, if there is one.

    Raises:
        ArgumentError: it is empty, or no text.
    """
    if not isinstance(runner_id, str) or not runner_id:
        raise ArgumentError("runner_id", "must be an id that is not empty; `fal runners list` lists the runners")
    return runner_id


def parse_states(states: Iterable[RunnerState | str] | None) -> frozenset[RunnerState] | None:
    """What a filter by states lets through; None lets all through.

    Args:
        states: states, or their names in any case; "all" lets all through. "terminated" lets "dead" through too.

    Raises:
        ArgumentError: a name is unknown, or one text was given instead of a list.
    """
    if states is None:
        return None
    if isinstance(states, str):
        raise ArgumentError("state", f"must be a list, such as [{states!r}]")
    wanted: set[RunnerState] = set()
    for state in states:
        if isinstance(state, RunnerState):
            wanted.add(state)
        elif state.lower() == "all":
            return None
        elif state.upper() in RunnerState.__members__:
            wanted.add(RunnerState[state.upper()])
        else:
            known = ", ".join(["all", *(name.lower() for name in RunnerState.__members__ if name != "UNKNOWN")])
            raise ArgumentError("state", f"{state!r} is not one of {known}")
    if RunnerState.TERMINATED in wanted:
        wanted.add(RunnerState.DEAD)
    return frozenset(wanted) if wanted else None
