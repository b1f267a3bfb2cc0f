"""The second name of every method: other controllers know Runners.ListRunners as IsolateController's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import grpc
    import grpc.aio

ISOLATE_SERVICE = "controller.IsolateController"
OURS_ALONE = frozenset(
    {
        "/fal.v1.Accounts/AddMember",
        "/fal.v1.Accounts/CreateAccount",
        "/fal.v1.Accounts/DeleteAccount",
        "/fal.v1.Accounts/GetQuotas",
        "/fal.v1.Accounts/ListAccounts",
        "/fal.v1.Accounts/ListMembers",
        "/fal.v1.Accounts/RemoveMember",
        "/fal.v1.Accounts/RenameAccount",
        "/fal.v1.Accounts/SetQuotas",
        "/fal.v1.Apps/ExplainApp",
        "/fal.v1.Apps/SimulateApp",
        "/fal.v1.Apps/WatchApps",
        "/fal.v1.Audit/ListAuditEntries",
        "/fal.v1.Audit/VerifyAudit",
        "/fal.v1.Drains/CreateDrain",
        "/fal.v1.Drains/DeleteDrain",
        "/fal.v1.Drains/GetDrain",
        "/fal.v1.Drains/ListDrains",
        "/fal.v1.Drains/PauseDrain",
        "/fal.v1.Drains/ResumeDrain",
        "/fal.v1.Execs/CloseExec",
        "/fal.v1.Execs/GetExec",
        "/fal.v1.Execs/ListExecs",
        "/fal.v1.Execs/ReadExec",
        "/fal.v1.Execs/ResizeExec",
        "/fal.v1.Execs/SignalExec",
        "/fal.v1.Execs/StartExec",
        "/fal.v1.Execs/WriteExec",
        "/fal.v1.Keys/CreateLoginToken",
        "/fal.v1.Keys/GetCaller",
        "/fal.v1.Keys/RotateUserKey",
        "/fal.v1.Notices/CreateNotice",
        "/fal.v1.Notices/DeleteNotice",
        "/fal.v1.Notices/GetNotice",
        "/fal.v1.Notices/ListNotices",
        "/fal.v1.Notices/TestNotice",
        "/fal.v1.Requests/GetRequest",
        "/fal.v1.Requests/GetRequestStats",
        "/fal.v1.Requests/ListRequests",
        "/fal.v1.Revisions/PlanApplication",
        "/fal.v1.Runners/GetRunner",
        "/fal.v1.Runners/ListNodes",
        "/fal.v1.Runners/WatchRunners",
        "/fal.v1.Logs/ListLogs",
        "/fal.v1.Logs/FollowLogs",
    }
)
"""The methods that IsolateController lacks."""


def isolate_name(method: str) -> str:
    """Return a method's name in IsolateController. A method that it lacks keeps its own."""
    return method if method in OURS_ALONE else f"/{ISOLATE_SERVICE}/{method.rpartition('/')[2]}"


class _Make(Protocol):
    def __call__(self, method: str, *args: object, **kwargs: object) -> object: ...


class _Renamed:
    """A channel whose stubs call methods by their second name. It is blocking or asyncio."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.unary_unary = _renaming(cast("_Make", channel.unary_unary))
        self.unary_stream = _renaming(cast("_Make", channel.unary_stream))
        self.stream_unary = _renaming(cast("_Make", channel.stream_unary))
        self.stream_stream = _renaming(cast("_Make", channel.stream_stream))


def _renaming(make: _Make) -> _Make:
    return lambda method, *args, **kwargs: make(isolate_name(method), *args, **kwargs)


def renamed(channel: grpc.Channel) -> grpc.Channel:
    """Return a channel that calls methods by their second name. The caller closes the original one."""
    return cast("grpc.Channel", _Renamed(channel))


def renamed_aio(channel: grpc.aio.Channel) -> grpc.aio.Channel:
    """Return an asyncio channel that calls methods by their second name."""
    return cast("grpc.aio.Channel", _Renamed(channel))
