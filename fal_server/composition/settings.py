"""The settings of a controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from fal_server.composition.options import is_loopback
from fal_server.composition.shared_directories import SharedDirectory
from fal_server.composition.tls import TlsSettings
from fal_server.core.machines import MachineTypes
from fal_server.http.outbound.destinations import Network

_ANY = ("0.0.0.0", "::")  # noqa: S104  # compared with, not listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a controller, as `fal up` takes them.

    Attributes:
        host: the address to listen on.
        port: for gRPC and HTTP; 0 picks a free one.
        grpc_port: for gRPC alone; 0 picks a free one.
        gpus: how many GPUs this machine offers, by label; they need not exist.
        machine_types: what runners can be.
        database: the URL of a PostgreSQL database; None keeps a SQLite file in the state directory.
        warm_shims: how many shims wait for their next runner, about 25 MiB each.
        warm_workers: how many of the environments used last keep a worker waiting that has done their imports.
        isolation: the level of isolation of runners; None takes the strongest that works here.
        require_isolation: the weakest level with which to start.
        shared: directories of this machine that every runner sees.
        retention_days: how long logs and ended runners are kept.
        request_history_days: how long the rows and numbers of requests that have ended are kept.
        request_sample: of the successful requests, how many get a row: 0 to 1.
        log_bytes: about how large the stored logs may be, the oldest going first; None does not bound them.
        file_retention_days: how long files that apps make are kept if the request does not say; 0 keeps them.
        unused_retention_days: how long environments, code and app files are kept after no revision needs them; 0
            keeps them.
        allowed_hosts: the names that requests over HTTP may use; none admits every name.
        webhook_allow: private networks that webhooks and uploads by URL may reach.
        mcp_writes: whether tools for agents at /v1/mcp/platform may act, if their caller's key permits it.
        drain_seconds: how long a stop waits for requests in flight.
        new_key: make another administrator's key, whatever keys there are.
        new_database: start with an empty database although the state directory was in use.
        adopt_runners: whether the runners in the database are this directory's; a copy's are not.
        tls: if set, `port` speaks TLS; the port of gRPC alone stays plaintext on loopback.
    """

    host: str = "127.0.0.1"
    port: int = 0
    grpc_port: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict[str, int])
    machine_types: MachineTypes = field(default_factory=MachineTypes)
    database: str | None = field(default=None, repr=False)  # it may hold a password
    warm_shims: int = 1
    warm_workers: int = 2
    isolation: str | None = None
    require_isolation: str | None = None
    shared: tuple[SharedDirectory, ...] = ()
    retention_days: float = 7.0
    request_history_days: float = 7.0
    request_sample: float = 1.0
    log_bytes: int | None = None
    file_retention_days: float = 30.0
    unused_retention_days: float = 7.0
    allowed_hosts: tuple[str, ...] = ()
    webhook_allow: tuple[Network, ...] = ()
    mcp_writes: bool = False
    drain_seconds: float = 30.0
    tls: TlsSettings | None = None
    new_database: bool = False
    new_key: bool = False
    adopt_runners: bool = True

    def address(self, port: int) -> str:
        """Return host and port for callers; other machines use the first name given for TLS."""
        host = self.host
        if self.tls is not None and self.tls.names and not is_loopback(host):
            host = self.tls.names[0]
        elif host in _ANY:
            host = "localhost"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def unused_life(self) -> timedelta | None:
        """How long content that no revision needs is kept; None keeps it."""
        return timedelta(days=self.unused_retention_days) if self.unused_retention_days else None

    @property
    def file_life(self) -> timedelta | None:
        """How long a file that an app makes is kept; None keeps it."""
        return timedelta(days=self.file_retention_days) if self.file_retention_days else None
