"""Opens channels: TLS or plaintext, message sizes, keepalive, and which methods are tried again when a link fails."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fal_grpc.compat import ISOLATE_SERVICE
from fal_grpc.credentials import Credentials, NoCredentials
from fal_grpc.errors import ConfigError, InsecureChannelError
from fal_grpc.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc
    import grpc.aio

MAX_MESSAGE_BYTES = 2**31 - 1
"""The most that gRPC can carry: a deploy's callable and metadata come in one message."""

REPEATABLE = (
    # Reads.
    "Apps/ListAliases",
    "Environments/ListEnvironments",
    "Execs/GetExec",
    "Execs/ListExecs",
    "Keys/ListUserKeys",
    "Logs/ListLogs",
    "Revisions/ListApplications",
    "Runners/GetRunner",
    "Runners/ListAliasRunners",
    "Runners/ListRunners",
    "Secrets/ListSecrets",
    # Writes that say how a thing shall be, so that a second time changes nothing more.
    "Apps/SetAlias",
    "Apps/UpdateApplication",
    "Execs/ResizeExec",
    # The caller chose the id: the second request finds the first one's command.
    "Execs/StartExec",
    # Builds are content-addressed: the second request finds the first one's result.
    "Revisions/BuildEnvironment",
)
"""The methods that are tried again on UNAVAILABLE: doing them twice is as doing them once.

Not here: what makes something new each time (keys, environments, revisions, runs, rollouts, a stop with a replacement);
what can fail the second time because the first succeeded (deletes, revokes, stops, kills, and secrets, which the same
call unsets); and streams that are resumed by a cursor or not at all.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How to talk to a controller.

    Attributes:
        deadline_seconds: how long a unary call may take in all, retries included. Streams have no deadline.
        keepalive_seconds: after so long without traffic during a call, the link is tested.
        keepalive_timeout_seconds: a test that is not answered in so long means that the link is broken.
        attempts: how often a repeatable call is tried in all, 1 to 5 (gRPC's own limit).
        wire: whether the methods that IsolateController has too are called by its names, which every controller knows
            ("isolate"), or by those of fal.v1 ("fal.v1"). See docs/explanation/decisions/0006-method-names.md.
        root_certificates: a PEM file with the authorities to trust; None means what GRPC_DEFAULT_SSL_ROOTS_FILE_PATH
            or SSL_CERT_FILE names, or those that gRPC brings along.
    """

    deadline_seconds: float = 60.0
    keepalive_seconds: float = 30.0
    keepalive_timeout_seconds: float = 10.0
    attempts: int = 4
    wire: Literal["isolate", "fal.v1"] = "isolate"
    root_certificates: Path | None = None


def check_secure(target: Target, credentials: Credentials) -> None:
    """Refuse to send credentials where others could read them.

    Raises:
        InsecureChannelError: they would go in plaintext to another machine.
    """
    if target.plaintext and not target.is_loopback and not isinstance(credentials, NoCredentials):
        raise InsecureChannelError(
            f"{target} is another machine and would be spoken to in plaintext, where others can read the key. "
            f"Use TLS (https://{target}), or forward the port to this machine (ssh -L) and call 127.0.0.1."
        )


def root_certificates(options: ChannelOptions, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file with the authorities to trust, if one is named.

    Raises:
        ConfigError: it cannot be read.
    """
    named = [(variable, environ.get(variable)) for variable in ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE")]
    if options.root_certificates is not None:
        named.insert(0, ("root_certificates", str(options.root_certificates)))
    for source, path in named:
        if path:
            if not os.access(path, os.R_OK) or not Path(path).is_file():
                raise ConfigError(f"{source} names {path}, which is no file that can be read")
            return Path(path)
    return None


def user_agent() -> str:
    """What this client calls itself."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"fal-grpc/{version('fal-grpc')}"
    except PackageNotFoundError:
        # Run from a source tree that is not installed.
        return "fal-grpc/unknown"


def service_config(attempts: int) -> str:
    """gRPC's own retry policy, as JSON: the repeatable methods, by both their names."""
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
    """The channel arguments."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", int(options.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_seconds * 1000)),
        # An idle stream (a followed log, a shell) must be tested as long as it is open.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.primary_user_agent", user_agent()),
        ("grpc.service_config", service_config(options.attempts)),
        ("grpc.enable_retries", 1),
        # After a broken link, a controller that is restarted is found soon.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # A proxy cannot reach this machine, and must not see its keys.
        ("grpc.enable_http_proxy", 0 if target.is_loopback else 1),
    ]


def open_channel(target: Target, credentials: Credentials, options: ChannelOptions) -> grpc.Channel:
    """A blocking channel. It connects at the first call.

    Raises:
        InsecureChannelError: credentials would go in plaintext to another machine.
        ConfigError: the certificates cannot be read.
    """
    import grpc

    check_secure(target, credentials)
    if target.plaintext and not target.is_loopback:
        return grpc.insecure_channel(target.authority, arguments(target, options))
    return grpc.secure_channel(target.authority, _transport(target, options), arguments(target, options))


def open_aio_channel(target: Target, credentials: Credentials, options: ChannelOptions) -> grpc.aio.Channel:
    """The same for asyncio; call it where a loop runs."""
    import grpc.aio

    check_secure(target, credentials)
    if target.plaintext and not target.is_loopback:
        return grpc.aio.insecure_channel(target.authority, arguments(target, options))
    return grpc.aio.secure_channel(target.authority, _transport(target, options), arguments(target, options))


def _transport(target: Target, options: ChannelOptions) -> grpc.ChannelCredentials:
    import grpc

    if target.plaintext:
        # Plaintext that gRPC itself refuses to speak with any peer but this machine, whatever the name resolves to.
        return grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
    roots = root_certificates(options)
    return grpc.ssl_channel_credentials(None if roots is None else roots.read_bytes())
