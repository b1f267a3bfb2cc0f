"""The settings of a controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from fal_server.composition.options import is_loopback, is_unspecified
from fal_server.composition.shared_directories import SharedDirectory
from fal_server.core.machines import MachineTypes
from fal_server.http.outbound.destinations import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The TLS settings.

    Attributes:
        certificate: PEM with its chain; None uses the local CA.
        key: PEM, the certificate's key.
        names: more names and addresses for the local CA's certificate.
        client_authorities: PEM of the CAs for client certificates, which are then required; None requires none.
    """

    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    client_authorities: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a controller, as for `fal up`.

    Attributes:
        host: the address to listen on.
        port: for gRPC and HTTP; 0 picks a free one.
        grpc_port: for gRPC alone; 0 picks a free one.
        gpus: the GPUs that this machine offers, by label; they need not exist.
        machine_types: the types that runners can have.
        database: the URL of a PostgreSQL database; None keeps a SQLite file in the state directory.
        standby: wait while another controller has the database, and take over when it ends.
        warm_shims: how many shims wait for their next runner, about 25 MiB each.
        warm_workers: for how many of the recently used environments a worker waits with their imports done.
        isolation: the isolation level of runners; None takes the strongest that works here.
        require_isolation: the weakest level with which to start.
        shared: directories of this machine that every runner sees.
        retention_days: how long logs and ended runners are kept.
        request_history_days: how long rows and statistics of ended requests are kept.
        request_sample: the share of successful requests that get a row, 0 to 1.
        request_payloads: whether inputs and outputs of direct requests are kept as long.
        log_bytes: the approximate limit for stored logs, oldest deleted first; None sets no limit.
        file_retention_days: how long files that apps create are kept by default; 0 keeps them.
        unused_retention_days: how long environments, code and app files are kept after no revision needs them; 0
            keeps them.
        trusted_networks: where requests go to the ports of nodes' runners without TLS.
        allowed_hosts: the hosts that HTTP requests may name; empty allows every host.
        webhook_allow: private networks that webhooks and uploads by URL may reach.
        traces: the URL of a receiver of OTLP that gets spans of requests; None exports none.
        mcp_writes: whether tools for agents at /v1/mcp/platform may act, if their caller's key permits it.
        engine: who decides where runners start: `local`, this controller, or `ray`.
        ray_address: of the Ray cluster; `auto` finds the one that this machine is in.
        ray_python: the interpreter that has Ray; None takes this one's.
        content: the URL of the bucket for code and files; None keeps them in a directory.
        region: where this machine is; empty if that was not said.
        engine_grows_seconds: how long a runner waits for a machine that the Ray cluster may get.
        drain_seconds: how long a shutdown waits for requests in flight.
        new_key: create a new administrator's key, even if there are keys.
        new_database: start with an empty database although the state directory was in use.
        adopt_runners: whether the runners in the database belong to this directory; a copy's do not.
        tls: if set, `port` speaks TLS; the port of gRPC alone stays plaintext on loopback.
    """

    host: str = "127.0.0.1"
    port: int = 0
    grpc_port: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict[str, int])
    machine_types: MachineTypes = field(default_factory=MachineTypes)
    database: str | None = field(default=None, repr=False)  # it may contain a password
    standby: bool = False
    warm_shims: int = 1
    warm_workers: int = 2
    isolation: str | None = None
    require_isolation: str | None = None
    shared: tuple[SharedDirectory, ...] = ()
    retention_days: float = 7.0
    request_history_days: float = 7.0
    request_sample: float = 1.0
    request_payloads: bool = False
    log_bytes: int | None = None
    file_retention_days: float = 30.0
    unused_retention_days: float = 7.0
    trusted_networks: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    webhook_allow: tuple[Network, ...] = ()
    traces: str | None = field(default=None, repr=False)  # it may contain a credential
    mcp_writes: bool = False
    engine: str = "local"
    ray_address: str = "auto"
    ray_python: str | None = None
    engine_grows_seconds: float = 0
    content: str | None = None
    region: str = ""
    drain_seconds: float = 30.0
    tls: TlsSettings | None = None
    new_database: bool = False
    new_key: bool = False
    adopt_runners: bool = True

    @property
    def listens_on_one(self) -> bool:
        """Whether `host` is one address of this machine, not all of them."""
        return not is_unspecified(self.host)

    def address(self, port: int) -> str:
        """Return host and port for callers. Other machines use the first name in the TLS settings."""
        host = self.host
        if self.tls is not None and self.tls.names and not is_loopback(host):
            host = self.tls.names[0]
        elif is_unspecified(host):
            host = "localhost"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def unused_life(self) -> timedelta | None:
        """How long content that no revision needs is kept; None keeps it."""
        return timedelta(days=self.unused_retention_days) if self.unused_retention_days else None

    @property
    def file_life(self) -> timedelta | None:
        """How long a file created by an app is kept. None keeps it."""
        return timedelta(days=self.file_retention_days) if self.file_retention_days else None
