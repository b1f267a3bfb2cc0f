"""Opens channels: TLS or plaintext, message sizes, keepalive, and the methods that gRPC retries."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fal_grpc import VERSION
from fal_grpc.compat import ISOLATE_SERVICE
from fal_grpc.credentials import Credentials, NoCredentials
from fal_grpc.errors import ConfigError, InsecureChannelError
from fal_grpc.failover import grpc_addresses
from fal_grpc.target import Target, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc
    import grpc.aio

MAX_MESSAGE_BYTES = 2**31 - 1
"""gRPC's largest message, because a deploy sends its callable and metadata in one."""

_VERBOSITY = "GRPC_VERBOSITY"

REPEATABLE = (
    # Reads.
    "Accounts/GetQuotas",
    "Accounts/ListAccounts",
    "Accounts/ListMembers",
    "Apps/ListAliases",
    "Audit/ListAuditEntries",
    "Audit/VerifyAudit",
    "Drains/GetDrain",
    "Drains/ListDrains",
    "Environments/ListEnvironments",
    "Execs/GetExec",
    "Execs/ListExecs",
    "Keys/GetCaller",
    "Keys/ListUserKeys",
    "Logs/ListLogs",
    "Notices/GetNotice",
    "Notices/ListNotices",
    "Requests/GetRequest",
    "Requests/GetRequestStats",
    "Requests/ListRequests",
    "Revisions/ListApplications",
    "Runners/GetRunner",
    "Runners/ListNodes",
    "Runners/ListAliasRunners",
    "Runners/ListRunners",
    "Secrets/ListSecrets",
    # Writes of a complete state, so that a second one changes nothing.
    "Accounts/AddMember",
    "Accounts/SetQuotas",
    "Apps/SetAlias",
    "Apps/UpdateApplication",
    "Drains/PauseDrain",
    "Drains/ResumeDrain",
    "Execs/ResizeExec",
    # The caller chooses the id, so the second request finds the first one's command.
    "Execs/StartExec",
    # Builds are content-addressed, so the second request finds the first one's result.
    "Revisions/BuildEnvironment",
)
"""The methods retried on UNAVAILABLE, because a second call has the same effect as one.

It excludes methods that create something (keys, environments, revisions, runs, rollouts, a stop with a replacement);
methods that fail the second time because the first succeeded (deletes, revokes, stops, kills, and secrets, which the
same call unsets); and streams, which resume by a cursor or not at all.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How to call a controller.

    Attributes:
        deadline_seconds: how long a unary call may take, retries included. Streams have no deadline.
        keepalive_seconds: how long a call may be without traffic before the link is tested.
        keepalive_timeout_seconds: how long such a test may take before the link counts as broken.
        attempts: how often a repeatable call is tried, 1 to 5 (gRPC's limit).
        wire: the names of methods that IsolateController has too: its own, which every controller knows ("isolate"), or
            those of fal.v1 ("fal.v1"). See docs/explanation/decisions/0006-method-names.md.
        root_certificates: a PEM file with the trusted CAs; None means GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, SSL_CERT_FILE,
            or gRPC's own.
        client_certificate: a PEM file with the certificate, and its chain, for controllers that ask for one.
        client_key: a PEM file with its key; None means that the certificate's file contains it.
        start_command: what starts the controller if it is one of this machine, for messages.
        named_by: what has the controller's address, such as "FAL_HOST", for messages.
    """

    deadline_seconds: float = 60.0
    keepalive_seconds: float = 30.0
    keepalive_timeout_seconds: float = 10.0
    attempts: int = 4
    wire: Literal["isolate", "fal.v1"] = "isolate"
    root_certificates: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    start_command: str = "fal up"
    named_by: str = "the argument host"


def check_secure(target: Target, credentials: Credentials) -> None:
    """Raise an error if others could read the credentials in transit.

    Raises:
        InsecureChannelError: they would go to another machine in plaintext.
    """
    if not isinstance(credentials, NoCredentials):
        check_private(target)


def check_private(target: Target) -> None:
    """Raise an error if others could read data sent to a target.

    Raises:
        InsecureChannelError: it is another machine and uses plaintext.
    """
    if target.plaintext and not target.is_loopback:
        which = next(each for each in (target, *target.others) if not is_loopback(each.host))
        raise InsecureChannelError(
            f"{which.authority} is another machine, and in plaintext others can read the key on the way. "
            f"Use TLS (https://{which.authority}), or forward the port to this machine (ssh -L) and call 127.0.0.1."
        )


def root_certificates(options: ChannelOptions, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file with the trusted CAs, if one is configured.

    Raises:
        ConfigError: it cannot be read.
    """
    named = [(variable, environ.get(variable)) for variable in ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE")]
    if options.root_certificates is not None:
        named.insert(0, ("root_certificates", str(options.root_certificates)))
    for source, path in named:
        if path:
            if not os.access(path, os.R_OK) or not Path(path).is_file():
                raise ConfigError(f"{source} names {path}, which is not a readable file")
            return Path(path)
    return None


def client_certificate(options: ChannelOptions) -> tuple[Path, Path] | None:
    """Return the files of the client certificate and its key, if any.

    Raises:
        ConfigError: one cannot be read, or they are not a certificate and its key.
    """
    if options.client_certificate is None:
        return None
    files = options.client_certificate, options.client_key or options.client_certificate
    for path in files:
        if not os.access(path, os.R_OK) or not path.is_file():
            raise ConfigError(f"the client's certificate is to be in {path}, which is not a readable file")
    import ssl  # only clients with a certificate need it

    try:
        # gRPC itself would only report a failed handshake. The empty passphrase prevents a prompt.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
    except ssl.SSLError:
        raise ConfigError(
            f"{files[0]} and {files[1]} are not a certificate and its key, in PEM and without a passphrase"
        ) from None
    return files


def user_agent() -> str:
    """Return the User-Agent of this client."""
    return f"fal-grpc/{VERSION}"


def service_config(attempts: int) -> str:
    """Return gRPC's retry policy as JSON. It lists the repeatable methods under both their names."""
    names: list[dict[str, str]] = []
    for path in REPEATABLE:
        service, _, method = path.partition("/")
        names.append({"service": f"fal.v1.{service}", "method": method})
        names.append({"service": ISOLATE_SERVICE, "method": method})
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}] if attempts > 1 else []})


def arguments(target: Target, options: ChannelOptions) -> list[tuple[str, str | int]]:
    """Return the channel arguments."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", int(options.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_seconds * 1000)),
        # Test an idle stream (a followed log, a shell) as long as it is open.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.primary_user_agent", user_agent()),
        ("grpc.service_config", service_config(options.attempts)),
        ("grpc.enable_retries", 1),
        # Find a restarting controller soon.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # A proxy cannot reach this machine, and must not see its keys.
        ("grpc.enable_http_proxy", 0 if target.is_loopback else 1),
        # Of several only the addresses are given; their certificates have the names of all.
        *(
            [("grpc.ssl_target_name_override", target.host), ("grpc.default_authority", target.authority)]
            if target.others and not target.plaintext
            else []
        ),
    ]


def load_grpc() -> None:
    """Import gRPC so that it logs errors alone. Otherwise it tells of handshakes, which our own errors name."""
    if "grpc" in sys.modules or _VERBOSITY in os.environ:
        return
    os.environ[_VERBOSITY] = "ERROR"
    try:
        importlib.import_module("grpc")  # it reads the variable now, and never again
    finally:
        del os.environ[_VERBOSITY]  # child processes, such as apps, log as before


def open_channel(target: Target, credentials: Credentials, options: ChannelOptions) -> grpc.Channel:
    """Open a blocking channel; it connects at the first call.

    Raises:
        InsecureChannelError: credentials would go to another machine in plaintext.
        ConfigError: the certificates cannot be read.
    """
    import grpc

    check_secure(target, credentials)
    if target.plaintext and not target.is_loopback:
        return grpc.insecure_channel(grpc_addresses(target), arguments(target, options))
    return grpc.secure_channel(grpc_addresses(target), _transport(target, options), arguments(target, options))


def open_aio_channel(target: Target, credentials: Credentials, options: ChannelOptions) -> grpc.aio.Channel:
    """Open an asyncio channel; call it inside a running event loop."""
    import grpc.aio

    check_secure(target, credentials)
    if target.plaintext and not target.is_loopback:
        return grpc.aio.insecure_channel(grpc_addresses(target), arguments(target, options))
    return grpc.aio.secure_channel(grpc_addresses(target), _transport(target, options), arguments(target, options))


def _transport(target: Target, options: ChannelOptions) -> grpc.ChannelCredentials:
    import grpc

    if target.plaintext:
        # gRPC itself then refuses any peer on another machine, whatever the name resolves to.
        return grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
    roots = root_certificates(options)
    own = client_certificate(options)
    return grpc.ssl_channel_credentials(
        None if roots is None else roots.read_bytes(),
        private_key=None if own is None else own[1].read_bytes(),
        certificate_chain=None if own is None else own[0].read_bytes(),
    )
