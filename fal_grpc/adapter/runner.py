"""Runners: the processes that serve apps, and the requests about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from fal_grpc.adapter.app import app_name
from fal_grpc.adapter.values import JSON, count, flag, from_struct, text, to_datetime, to_timestamp
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import runner_pb2


class RunnerState(StrEnum):
    """The state of a runner. CRASH_BACKOFF is FAILURE_DELAY on the wire; DEAD is an old name for TERMINATED."""

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
    """Whether another runner replaces this one."""

    NO_REPLACE = "NO_REPLACE"
    WILL_REPLACE = "WILL_REPLACE"
    DID_REPLACE = "DID_REPLACE"
    UNKNOWN = "UNKNOWN"


class _Received:
    """Keeps a received runner's message until a field is read. Most fields in a list never are."""

    __slots__ = ("_message",)
    _message: runner_pb2.RunnerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerStateChange:
    """A change of a runner's state.

    Attributes:
        at: the time; aware.
        state: the new state.
        reason: why, for people; may be empty.
    """

    at: datetime
    state: RunnerState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerStartPhases:
    """How many seconds each phase of a runner's start took. A phase that has not ended is None.

    Attributes:
        waiting: until a node was told to start it.
        environment: from then until its process started: building the environment, collecting code and secrets.
        setup: from then until it was ready for requests.
        first_byte: from its first request to the first byte of the response.
    """

    waiting: float | None = None
    environment: float | None = None
    setup: float | None = None
    first_byte: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUsage:
    """Recent resource usage of a runner's processes.

    Attributes:
        cpu_cores: processors, averaged over some seconds: 1 is one that is always busy.
        gpu_memory_bytes: None if its machine has no GPU that reports it.
        gpu_cores: GPUs, averaged likewise; None if unknown.
        measured_at: the time; aware.
    """

    cpu_cores: float
    memory_bytes: int
    gpu_memory_bytes: int | None = None
    gpu_cores: float | None = None
    measured_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo(_Received):
    """A runner.

    The published client's fields come first; those after `replacement` are None or empty if the controller does not
    send them. Fields are converted at their first access, so that a list of thousands costs little.

    Attributes:
        expiration_countdown: seconds until it ends without further requests; None while it serves one.
        uptime: since its process started.
        external_metadata: further data, in any form; `leases` lists the requests in flight.
        revision: the revision that it serves.
        alias: the app that it serves.
        state_reason: why it is in its state, for people.
        created_at: when the controller decided to start it. All times are aware.
        ready_at: when it was first ready for requests.
        ended_at: when its process ended.
        exit_code: of its process; 128 plus the signal's number if a signal ended it.
        node: the machine that it is on.
        gpus: the ids of the GPUs that it holds.
        region: where that machine is; None if its operator did not say.
        unreachable: whether that machine does not answer, so that `state` is what was known last.
        state_changes: its earlier states, oldest first. Only `get` returns this and `start_phases`, not a list.
        start_phases: how long each phase of its start took.
        usage: the processors and memory that it uses; None if unknown, or if it has ended.
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
    gpus: tuple[str, ...] = ()
    region: str | None = None
    unreachable: bool = False
    state_changes: tuple[RunnerStateChange, ...] = ()
    start_phases: RunnerStartPhases | None = None
    usage: RunnerUsage | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Convert a field at its first access. Python calls this only for a field without a value."""
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

# A class takes longer to find a member.
_UNKNOWN_STATE, _UNKNOWN_REPLACEMENT = RunnerState.UNKNOWN, ReplaceState.UNKNOWN
_RUNNERS_ON_A_PAGE = 1000
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# The slots' setters: a frozen dataclass has no others, and they are twice as fast as object.__setattr__.
_SET = {name: RunnerInfo.__dict__[name].__set__ for name in RunnerInfo.__dataclass_fields__}
_KEEP = _Received.__dict__["_message"].__set__
_message_of: Callable[[RunnerInfo], runner_pb2.RunnerInfo] = _Received.__dict__["_message"].__get__
_set_id, _set_requests, _set_countdown = _SET["runner_id"], _SET["in_flight_requests"], _SET["expiration_countdown"]
_set_uptime, _set_revision, _set_alias = _SET["uptime"], _SET["revision"], _SET["alias"]
_set_state, _set_type, _set_replacement = _SET["state"], _SET["machine_type"], _SET["replacement"]
_set_metadata, _set_environment, _set_reason = _SET["external_metadata"], _SET["environment_name"], _SET["state_reason"]
_set_exit_code, _set_node, _set_gpus, _set_usage = _SET["exit_code"], _SET["node"], _SET["gpus"], _SET["usage"]
_set_created, _set_ready, _set_ended = _SET["created_at"], _SET["ready_at"], _SET["ended_at"]
_set_changes, _set_phases, _set_region = _SET["state_changes"], _SET["start_phases"], _SET["region"]
_set_unreachable = _SET["unreachable"]


def _fill_list(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    has = message.HasField
    _set_id(info, message.runner_id)
    _set_requests(info, message.in_flight_requests)
    _set_countdown(info, message.expiration_countdown if has("expiration_countdown") else None)
    _set_uptime(info, timedelta(0, message.uptime))
    _set_revision(info, message.revision)
    _set_alias(info, message.alias)
    # An unset state is 0, which is RUNNING, as in the published client.
    _set_state(info, STATES.get(message.state, _UNKNOWN_STATE))
    _set_type(info, message.machine_type)
    _set_replacement(info, REPLACEMENTS.get(message.replacement, _UNKNOWN_REPLACEMENT))
    _set_reason(info, message.state_reason if has("state_reason") else None)
    _set_node(info, message.node if has("node") else None)
    gpus = message.gpus
    _set_gpus(info, tuple(gpus) if gpus else ())
    _set_region(info, message.region if has("region") else None)
    _set_unreachable(info, message.unreachable)
    _set_usage(info, _usage(message.usage) if has("usage") else None)


def _fill_metadata(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    has = message.HasField("external_metadata")
    _set_metadata(info, from_struct(message.external_metadata) if has else {})


def _fill_life(info: RunnerInfo, message: runner_pb2.RunnerInfo) -> None:
    has = message.HasField
    _set_environment(info, message.environment_name)
    _set_exit_code(info, message.exit_code if has("exit_code") else None)
    _set_created(info, to_datetime(message.created_at) if has("created_at") else None)
    _set_ready(info, to_datetime(message.ready_at) if has("ready_at") else None)
    _set_ended(info, to_datetime(message.ended_at) if has("ended_at") else None)
    changes = message.state_changes
    _set_changes(info, tuple(map(_change, changes)) if changes else ())
    _set_phases(info, _phases(message.start_phases) if has("start_phases") else None)


def _change(message: runner_pb2.RunnerStateChange) -> RunnerStateChange:
    return RunnerStateChange(
        at=to_datetime(message.at), state=STATES.get(message.state, RunnerState.UNKNOWN), reason=message.reason
    )


def _usage(message: runner_pb2.RunnerUsage) -> RunnerUsage:
    return RunnerUsage(
        cpu_cores=message.cpu_cores,
        memory_bytes=message.memory_bytes,
        gpu_memory_bytes=message.gpu_memory_bytes if message.HasField("gpu_memory_bytes") else None,
        gpu_cores=message.gpu_cores if message.HasField("gpu_cores") else None,
        measured_at=to_datetime(message.measured_at) if message.HasField("measured_at") else None,
    )


def _phases(message: runner_pb2.RunnerStartPhases) -> RunnerStartPhases:
    return RunnerStartPhases(
        waiting=message.waiting_seconds if message.HasField("waiting_seconds") else None,
        environment=message.environment_seconds if message.HasField("environment_seconds") else None,
        setup=message.setup_seconds if message.HasField("setup_seconds") else None,
        first_byte=message.first_byte_seconds if message.HasField("first_byte_seconds") else None,
    )


# Fields that are mostly read together are converted together: each field that Python finds missing costs 1 us.
_GROUPS = {
    **dict.fromkeys(RunnerInfo.__dataclass_fields__, _fill_list),
    **dict.fromkeys(("environment_name", "exit_code", "created_at", "ready_at", "ended_at"), _fill_life),
    "state_changes": _fill_life,
    "start_phases": _fill_life,
    "external_metadata": _fill_metadata,
}


def runner_info(message: runner_pb2.RunnerInfo) -> RunnerInfo:
    """Return a runner whose fields are converted at their first access."""
    info = object.__new__(RunnerInfo)
    _KEEP(info, message)
    return info


class RunnerPages:
    """Collects the pages of a list of runners."""

    def __init__(self) -> None:
        self._found: list[RunnerInfo] = []
        self._whole = True

    def take(self, message: runner_pb2.ListRunnersResponse | runner_pb2.ListAliasRunnersResponse) -> str | None:
        """Add a page; return the token of the next, or None."""
        self._found += map(runner_info, message.runners)
        self._whole = self._whole and not message.next_page_token
        return message.next_page_token or None

    def runners(self) -> list[RunnerInfo]:
        """Return all runners, oldest first."""
        if self._whole:  # the order of other controllers, which may have its own meaning
            return self._found
        return sorted(self._found, key=lambda found: (found.created_at or _BEGINNING, found.runner_id))


def _page_size(since: datetime | None) -> int | None:
    return None if since is None else _RUNNERS_ON_A_PAGE


def aged(info: RunnerInfo, seconds: float) -> RunnerInfo:
    """Return a received runner as it would be some seconds later. It assumes that only time has passed."""
    message = _message_of(info)
    older = runner_info(message)
    _fill_list(older, message)
    if older.uptime:
        _set_uptime(older, older.uptime + timedelta(seconds=seconds))
    if older.expiration_countdown is not None:
        _set_countdown(older, max(0, older.expiration_countdown - round(seconds)))
    return older


def got(message: runner_pb2.GetRunnerResponse) -> RunnerInfo:
    return runner_info(message.runner)


def list_request(
    *, since: datetime | None = None, list_pending: bool = True, page_token: str | None = None
) -> runner_pb2.ListRunnersRequest:
    """Return a request for runners. `list_pending` is always sent, as by the published client.

    There may be tens of thousands of ended runners, so it asks for pages. Other controllers ignore that.
    """
    from fal_grpc.v1 import runner_pb2

    start = None if since is None else to_timestamp(since, argument="since")
    return runner_pb2.ListRunnersRequest(
        list_pending=list_pending, start_time=start, page_size=_page_size(since), page_token=page_token
    )


def list_alias_request(
    alias: str,
    *,
    since: datetime | None = None,
    list_pending: bool = True,
    environment_name: str | None = None,
    page_token: str | None = None,
) -> runner_pb2.ListAliasRunnersRequest:
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.ListAliasRunnersRequest(
        alias=app_name(alias, environment_name),
        list_pending=list_pending,
        start_time=None if since is None else to_timestamp(since, argument="since"),
        environment_name=environment_name,
        page_size=_page_size(since),
        page_token=page_token,
    )


def get_request(runner_id: str) -> runner_pb2.GetRunnerRequest:
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.GetRunnerRequest(runner_id=check_runner_id(runner_id))


def stop_request(
    runner_id: str, *, replace_first: bool = False, grace_seconds: int | None = None
) -> runner_pb2.StopRunnerRequest:
    """Return a request to stop a runner.

    Raises:
        ArgumentError: the grace is not a whole number, or negative.
    """
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.StopRunnerRequest(
        runner_id=check_runner_id(runner_id),
        replace_first=flag("replace_first", replace_first),
        grace_seconds=count("grace_seconds", grace_seconds),
    )


def kill_request(runner_id: str) -> runner_pb2.KillRunnerRequest:
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.KillRunnerRequest(runner_id=check_runner_id(runner_id))


def check_runner_id(runner_id: object) -> str:
    """Check and return an id.

    Raises:
        ArgumentError: it is empty, or not text.
    """
    return text("runner_id", runner_id, "must be an id that is not empty; `fal runners list` lists the runners")


def parse_states(states: Iterable[RunnerState | str] | None) -> frozenset[RunnerState] | None:
    """Return the states that a filter matches; None means any.

    Args:
        states: states, or their names in any case. "all" matches any, "terminated" also matches "dead".

    Raises:
        ArgumentError: a name is unknown, or it is one text instead of a list.
    """
    if states is None:
        return None
    if isinstance(states, str):
        raise ArgumentError("state", f"must be a list, such as [{states!r}]")
    if not isinstance(cast("object", states), Iterable):
        raise ArgumentError("state", f"must be a list, such as ['idle'], not {states!r}")
    wanted: set[RunnerState] = set()
    for state in states:
        text("state", state, "must be a list of texts, such as ['idle']")
        if state.lower() == "all":
            return None
        elif state.upper() in RunnerState.__members__:
            wanted.add(RunnerState[state.upper()])
        else:
            known = ", ".join(["all", *(name.lower() for name in RunnerState.__members__ if name != "UNKNOWN")])
            raise ArgumentError("state", f"{state!r} is not one of {known}")
    if RunnerState.TERMINATED in wanted:
        wanted.add(RunnerState.DEAD)
    return frozenset(wanted) if wanted else None
