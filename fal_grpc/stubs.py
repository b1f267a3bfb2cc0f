"""A controller's service stubs, each imported at first use."""

# Generated from fal_grpc/aio_stubs.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from fal_grpc.channel import load_grpc

if TYPE_CHECKING:
    import grpc

    from fal_grpc.v1.account_pb2_grpc import AccountsStub
    from fal_grpc.v1.app_pb2_grpc import AppsStub
    from fal_grpc.v1.audit_pb2_grpc import AuditStub
    from fal_grpc.v1.drain_pb2_grpc import DrainsStub
    from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub
    from fal_grpc.v1.exec_pb2_grpc import ExecsStub
    from fal_grpc.v1.key_pb2_grpc import KeysStub
    from fal_grpc.v1.log_pb2_grpc import LogsStub
    from fal_grpc.v1.notice_pb2_grpc import NoticesStub
    from fal_grpc.v1.request_pb2_grpc import RequestsStub
    from fal_grpc.v1.revision_pb2_grpc import RevisionsStub
    from fal_grpc.v1.run_pb2_grpc import RunsStub
    from fal_grpc.v1.runner_pb2_grpc import RunnersStub
    from fal_grpc.v1.secret_pb2_grpc import SecretsStub

S = TypeVar("S")


class Stubs(Protocol):
    """The services of a controller, over the channel that `_stub` opens."""

    def _stub(self, make: Callable[[grpc.Channel], S]) -> S:
        """Return the stub of a service, opening the channel at first use."""
        ...

    @property
    def accounts(self) -> AccountsStub:
        load_grpc()
        from fal_grpc.v1.account_pb2_grpc import AccountsStub

        return self._stub(AccountsStub)

    @property
    def apps(self) -> AppsStub:
        load_grpc()
        from fal_grpc.v1.app_pb2_grpc import AppsStub

        return self._stub(AppsStub)

    @property
    def audit(self) -> AuditStub:
        load_grpc()
        from fal_grpc.v1.audit_pb2_grpc import AuditStub

        return self._stub(AuditStub)

    @property
    def drains(self) -> DrainsStub:
        load_grpc()
        from fal_grpc.v1.drain_pb2_grpc import DrainsStub

        return self._stub(DrainsStub)

    @property
    def notices(self) -> NoticesStub:
        load_grpc()
        from fal_grpc.v1.notice_pb2_grpc import NoticesStub

        return self._stub(NoticesStub)

    @property
    def requests(self) -> RequestsStub:
        load_grpc()
        from fal_grpc.v1.request_pb2_grpc import RequestsStub

        return self._stub(RequestsStub)

    @property
    def revisions(self) -> RevisionsStub:
        load_grpc()
        from fal_grpc.v1.revision_pb2_grpc import RevisionsStub

        return self._stub(RevisionsStub)

    @property
    def runs(self) -> RunsStub:
        load_grpc()
        from fal_grpc.v1.run_pb2_grpc import RunsStub

        return self._stub(RunsStub)

    @property
    def runners(self) -> RunnersStub:
        load_grpc()
        from fal_grpc.v1.runner_pb2_grpc import RunnersStub

        return self._stub(RunnersStub)

    @property
    def execs(self) -> ExecsStub:
        load_grpc()
        from fal_grpc.v1.exec_pb2_grpc import ExecsStub

        return self._stub(ExecsStub)

    @property
    def keys(self) -> KeysStub:
        load_grpc()
        from fal_grpc.v1.key_pb2_grpc import KeysStub

        return self._stub(KeysStub)

    @property
    def secrets(self) -> SecretsStub:
        load_grpc()
        from fal_grpc.v1.secret_pb2_grpc import SecretsStub

        return self._stub(SecretsStub)

    @property
    def environments(self) -> EnvironmentsStub:
        load_grpc()
        from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub

        return self._stub(EnvironmentsStub)

    @property
    def logs(self) -> LogsStub:
        load_grpc()
        from fal_grpc.v1.log_pb2_grpc import LogsStub

        return self._stub(LogsStub)
