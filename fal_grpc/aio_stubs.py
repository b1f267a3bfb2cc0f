"""A controller's service stubs for asyncio, each imported at first use."""

# The source of fal_grpc/stubs.py: run `make gen` after a change.

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from fal_grpc.channel import load_grpc

if TYPE_CHECKING:
    import grpc.aio

    from fal_grpc.v1.account_pb2_grpc import AccountsAsyncStub
    from fal_grpc.v1.app_pb2_grpc import AppsAsyncStub
    from fal_grpc.v1.audit_pb2_grpc import AuditAsyncStub
    from fal_grpc.v1.drain_pb2_grpc import DrainsAsyncStub
    from fal_grpc.v1.environment_pb2_grpc import EnvironmentsAsyncStub
    from fal_grpc.v1.exec_pb2_grpc import ExecsAsyncStub
    from fal_grpc.v1.key_pb2_grpc import KeysAsyncStub
    from fal_grpc.v1.log_pb2_grpc import LogsAsyncStub
    from fal_grpc.v1.notice_pb2_grpc import NoticesAsyncStub
    from fal_grpc.v1.request_pb2_grpc import RequestsAsyncStub
    from fal_grpc.v1.revision_pb2_grpc import RevisionsAsyncStub
    from fal_grpc.v1.run_pb2_grpc import RunsAsyncStub
    from fal_grpc.v1.runner_pb2_grpc import RunnersAsyncStub
    from fal_grpc.v1.secret_pb2_grpc import SecretsAsyncStub

S = TypeVar("S")


class AsyncStubs(Protocol):
    """The services of a controller, over the channel that `_stub` opens."""

    def _stub(self, make: Callable[[grpc.aio.Channel], S]) -> S:
        """Return the stub of a service, opening the channel at first use."""
        ...

    @property
    def accounts(self) -> AccountsAsyncStub:
        load_grpc()
        from fal_grpc.v1.account_pb2_grpc import AccountsStub

        return self._stub(AccountsStub)

    @property
    def apps(self) -> AppsAsyncStub:
        load_grpc()
        from fal_grpc.v1.app_pb2_grpc import AppsStub

        return self._stub(AppsStub)

    @property
    def audit(self) -> AuditAsyncStub:
        load_grpc()
        from fal_grpc.v1.audit_pb2_grpc import AuditStub

        return self._stub(AuditStub)

    @property
    def drains(self) -> DrainsAsyncStub:
        load_grpc()
        from fal_grpc.v1.drain_pb2_grpc import DrainsStub

        return self._stub(DrainsStub)

    @property
    def notices(self) -> NoticesAsyncStub:
        load_grpc()
        from fal_grpc.v1.notice_pb2_grpc import NoticesStub

        return self._stub(NoticesStub)

    @property
    def requests(self) -> RequestsAsyncStub:
        load_grpc()
        from fal_grpc.v1.request_pb2_grpc import RequestsStub

        return self._stub(RequestsStub)

    @property
    def revisions(self) -> RevisionsAsyncStub:
        load_grpc()
        from fal_grpc.v1.revision_pb2_grpc import RevisionsStub

        return self._stub(RevisionsStub)

    @property
    def runs(self) -> RunsAsyncStub:
        load_grpc()
        from fal_grpc.v1.run_pb2_grpc import RunsStub

        return self._stub(RunsStub)

    @property
    def runners(self) -> RunnersAsyncStub:
        load_grpc()
        from fal_grpc.v1.runner_pb2_grpc import RunnersStub

        return self._stub(RunnersStub)

    @property
    def execs(self) -> ExecsAsyncStub:
        load_grpc()
        from fal_grpc.v1.exec_pb2_grpc import ExecsStub

        return self._stub(ExecsStub)

    @property
    def keys(self) -> KeysAsyncStub:
        load_grpc()
        from fal_grpc.v1.key_pb2_grpc import KeysStub

        return self._stub(KeysStub)

    @property
    def secrets(self) -> SecretsAsyncStub:
        load_grpc()
        from fal_grpc.v1.secret_pb2_grpc import SecretsStub

        return self._stub(SecretsStub)

    @property
    def environments(self) -> EnvironmentsAsyncStub:
        load_grpc()
        from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub

        return self._stub(EnvironmentsStub)

    @property
    def logs(self) -> LogsAsyncStub:
        load_grpc()
        from fal_grpc.v1.log_pb2_grpc import LogsStub

        return self._stub(LogsStub)
