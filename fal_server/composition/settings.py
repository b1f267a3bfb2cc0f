"""What an operator chooses for a controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from fal_server.composition.options import is_loopback
from fal_server.composition.tls import TlsSettings
from fal_server.core.accounts import Account

_ANY = ("0.0.0.0", "::")  # noqa: S104  # compared with, not listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator chooses.

    Attributes:
        host: the address to listen on.
        port: for gRPC and HTTP; 0 picks a free one.
        grpc_port: for gRPC alone; 0 picks a free one.
        gpus: what this machine offers, by label; simulated where it has none.
        database: the URL of a PostgreSQL database; None keeps a SQLite file in the state directory.
        warm_shims: how many processes are started ahead for runners, each about 25 MiB.
        warm_workers: for how many of the environments used last a worker is kept that has imported what their apps do.
        retention_days: how long logs and ended runners are kept.
        file_retention_days: how long files that apps make are kept, unless a request says otherwise; 0 keeps them.
        unused_retention_days: how long environments, code and files of apps are kept that nothing needs any more; 0
            keeps them.
        drain_seconds: how long a stop lets requests finish that are under way.
        tls: with it, `port` speaks TLS; the port of gRPC alone stays plaintext, on loopback.
    """

    host: str = "127.0.0.1"
    port: int = 0
    grpc_port: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict[str, int])
    database: str | None = field(default=None, repr=False)  # it may hold a password
    warm_shims: int = 1
    warm_workers: int = 2
    retention_days: float = 7.0
    file_retention_days: float = 30.0
    unused_retention_days: float = 7.0
    drain_seconds: float = 30.0
    account: Account = field(default_factory=Account)
    tls: TlsSettings | None = None

    def address(self, port: int) -> str:
        """Host and port by which callers reach the controller; from elsewhere by the first name given for TLS."""
        host = self.host
        if self.tls is not None and self.tls.names and not is_loopback(host):
            host = self.tls.names[0]
        elif host in _ANY:
            host = "localhost"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def unused_life(self) -> timedelta | None:
        """How long what nothing needs any more is kept; None keeps it."""
        return timedelta(days=self.unused_retention_days) if self.unused_retention_days else None

    @property
    def file_life(self) -> timedelta | None:
        """How long a file that an app makes is kept; None keeps it."""
        return timedelta(days=self.file_retention_days) if self.file_retention_days else None
