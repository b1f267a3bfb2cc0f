"""The options of a controller, for `fal up` and `python -m fal_server`. It needs no third-party package."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from fal_runner.isolation.levels import Isolation
from fal_server.core.faults import InvalidArgument
from fal_server.core.names import is_host_name, region_name
from fal_server.core.outbound import checked_url

LOOPBACK = "127.0.0.1"
NODE_PORT = 7411
_LEVELS = [level.value for level in Isolation]
_ENGINES = ("local", "ray")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MOST_DIGITS = 15
_MOST_GPUS = 1000
_DATABASES = {"postgresql", "postgres"}


def add_options(parser: argparse.ArgumentParser, *, port: int = 0) -> None:
    """Add all options for operators.

    Args:
        port: the default of `--port`.
    """
    parser.add_argument(
        "--host",
        type=_address,
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"The address to listen on (defaults to {LOOPBACK}). One that other machines reach needs TLS.",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=port,
        metavar="PORT",
        help=f"Where gRPC and HTTP are answered (defaults to {port or 'a free one'}; 0: a free one).",
    )
    parser.add_argument(
        "--grpc-port",
        type=_port,
        default=0,
        metavar="PORT",
        help="Where gRPC alone is answered (defaults to a free one).",
    )
    parser.add_argument(
        "--gpu",
        action="append",
        type=_gpu,
        default=[],
        metavar="LABEL=N",
        help="GPUs to offer, as GPU-H100=2. May be repeated.",
    )
    parser.add_argument(
        "--region",
        type=_region,
        metavar="NAME",
        help="Where this machine is, as us-east: apps that name regions start only where one of them is.",
    )
    parser.add_argument(
        "--machine-types",
        type=path_option,
        metavar="FILE",
        help="Your own machine types, as TOML, beside the usual ones.",
    )
    parser.add_argument(
        "--warm-shims",
        type=_count,
        default=1,
        metavar="N",
        help="How many processes to keep started for runners, 25 MiB each (defaults to 1).",
    )
    parser.add_argument(
        "--warm-workers",
        type=_count,
        default=2,
        metavar="N",
        help="How many of the environments used last have a process that waits for their next runner, with its imports "
        "done (defaults to 2).",
    )
    parser.add_argument(
        "--isolation",
        choices=_LEVELS,
        metavar="LEVEL",
        help="How strongly runners are kept apart, from each other and from this machine: "
        f"{', '.join(_LEVELS)} (defaults to the first of these that works here).",
    )
    parser.add_argument(
        "--require-isolation",
        choices=_LEVELS,
        metavar="LEVEL",
        help="Do not start if runners would get a weaker level.",
    )
    parser.add_argument(
        "--share-directory",
        action="append",
        type=_shared,
        default=[],
        metavar="PATH[:rw]",
        help="A directory of this machine that every runner sees at its path, as /models with weights: read-only, or "
        "with :rw to write. May be repeated.",
    )
    parser.add_argument(
        "--retention-days",
        type=_days,
        default=7.0,
        metavar="DAYS",
        help="How long logs, ended runners and requests that were given up are kept (defaults to 7).",
    )
    parser.add_argument(
        "--request-history-days",
        type=_days,
        default=7.0,
        metavar="DAYS",
        help="How long the history of requests is kept (defaults to 7).",
    )
    parser.add_argument(
        "--request-sample",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="Of the successful requests, how many `fal requests list` has, from 0 to 1. It has all others, and "
        "`fal apps stats` counts all (defaults to 1).",
    )
    parser.add_argument(
        "--request-payloads",
        action="store_true",
        help="Keep inputs and outputs of direct requests, too: JSON of at most 64 KiB, without credentials. Keys that "
        "may call apps see them.",
    )
    parser.add_argument(
        "--log-bytes",
        type=_bytes,
        metavar="SIZE",
        help="About how large the stored logs may be, as 20G; the oldest lines go first (defaults to no limit).",
    )
    parser.add_argument(
        "--file-retention-days",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="How long files that apps make are kept (defaults to 30; 0: for ever).",
    )
    parser.add_argument(
        "--unused-retention-days",
        type=_days,
        default=7.0,
        metavar="DAYS",
        help="How long environments, code and files are kept after no revision needs them (defaults to 7; 0: for "
        "ever).",
    )
    parser.add_argument(
        "--database",
        type=database_url,
        metavar="URL",
        help="A PostgreSQL database, as postgresql://user@host/name, in place of a file in the state directory. A URL "
        "with a password goes into FAL_DATABASE_URL.",
    )
    parser.add_argument(
        "--standby",
        action="store_true",
        help="While another controller has the database, wait, pass requests on to it, and take over when it ends or "
        "dies.",
    )
    parser.add_argument(
        "--content-dir",
        type=path_option,
        metavar="DIR",
        help="Where code and files are, on a file system that every controller of the database has; --standby needs it "
        "or --content (defaults to the state directory).",
    )
    parser.add_argument(
        "--content",
        type=_content_url,
        metavar="URL",
        help="A bucket of S3, or of what speaks it, for code and files in place of a directory, as s3://bucket/prefix. "
        "Credentials are in the environment, as AWS_ACCESS_KEY_ID.",
    )
    parser.add_argument(
        "--engine",
        choices=_ENGINES,
        default=_ENGINES[0],
        help="Who decides on which machine a runner starts: this controller, or a Ray cluster, on whose machines "
        f"`fal node up` runs (defaults to {_ENGINES[0]}).",
    )
    parser.add_argument(
        "--ray-address",
        default="auto",
        type=_ray_address,
        metavar="HOST:PORT",
        help="The Ray cluster, of which this machine is a part (defaults to auto: the one that runs here).",
    )
    parser.add_argument(
        "--ray-python",
        type=path_option,
        metavar="FILE",
        help="The Python that has the cluster's version of Ray (defaults to the controller's).",
    )
    parser.add_argument(
        "--engine-grows",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="How long a runner that no machine could hold waits for one that can, if the Ray cluster has an "
        "autoscaler (defaults to 0: it does not wait).",
    )
    parser.add_argument(
        "--trusted-network",
        action="append",
        type=_trusted_network,
        default=[],
        metavar="CIDR",
        help="A network of this machine and nodes that is closed or encrypted, as 10.0.0.0/24: requests to apps on the "
        "nodes there go straight to their ports, without TLS (defaults to none: through each node's door). May be "
        "repeated.",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        type=_host_name,
        default=[],
        metavar="NAME",
        help="Answer HTTP requests only by this name, and by addresses and localhost; protects against DNS rebinding "
        "(defaults to any name). May be repeated.",
    )
    parser.add_argument(
        "--webhook-allow",
        action="append",
        type=_network,
        default=[],
        metavar="CIDR",
        help="A private network that webhooks and uploads by URL may reach, as 10.0.0.0/8 or 127.0.0.1 (defaults to "
        "none). May be repeated.",
    )
    parser.add_argument(
        "--traces",
        type=_traces_url,
        metavar="URL",
        help="Export the spans of requests to this receiver of OTLP over HTTP, as http://127.0.0.1:4318/v1/traces "
        "(defaults to none).",
    )
    parser.add_argument(
        "--mcp-writes",
        action="store_true",
        help="Let tools for agents at /v1/mcp/platform stop and kill runners, roll back and scale apps, and redrive "
        "requests, if their caller's key permits it (defaults to tools that only read).",
    )
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="How long a stop waits for requests in flight (defaults to 30).",
    )
    recovery = parser.add_argument_group("After a restore or a loss")
    recovery.add_argument(
        "--adopt-copy",
        action="store_true",
        help="Make a copy of a state directory a controller of its own; the original's runners are left alone.",
    )
    recovery.add_argument(
        "--new-database",
        action="store_true",
        help="Start without apps, keys and secrets in a state directory whose database is gone.",
    )
    recovery.add_argument(
        "--new-key",
        action="store_true",
        help="Make another administrator's key for whoever owns the state directory, as after the loss of the others.",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help="Speak TLS, with a certificate by a local authority.")
    tls.add_argument("--tls-cert", type=path_option, metavar="FILE", help="Your own certificate with its chain, PEM.")
    tls.add_argument("--tls-key", type=path_option, metavar="FILE", help="Its key, PEM.")
    tls.add_argument(
        "--tls-name",
        action="append",
        type=_tls_name,
        default=[],
        metavar="NAME",
        help="A further host name for the certificate. May be repeated.",
    )
    tls.add_argument(
        "--tls-client-ca",
        type=path_option,
        metavar="FILE",
        help="Let in only who has a certificate by this authority, PEM, beside a key.",
    )


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of `fal node up`."""
    parser.add_argument(
        "--host",
        type=_address,
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"The address to listen on, which the controller's machine reaches (defaults to {LOOPBACK}).",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=7411,
        metavar="PORT",
        help="The port to listen on (defaults to 7411; 0: a free one).",
    )
    parser.add_argument(
        "--gpu",
        action="append",
        type=_gpu,
        default=[],
        metavar="LABEL=N",
        help="GPUs to offer, as GPU-H100=2. May be repeated.",
    )
    parser.add_argument(
        "--region",
        type=_region,
        metavar="NAME",
        help="Where this machine is, as us-east: apps that name regions start only where one of them is.",
    )
    parser.add_argument(
        "--isolation",
        choices=_LEVELS,
        metavar="LEVEL",
        help=f"How strongly runners are kept apart: {', '.join(_LEVELS)} (defaults to the first of these that works).",
    )
    parser.add_argument(
        "--warm-shims",
        type=_count,
        default=1,
        metavar="N",
        help="How many processes to keep started for runners, 25 MiB each (defaults to 1).",
    )
    parser.add_argument(
        "--warm-workers",
        type=_count,
        default=2,
        metavar="N",
        help="How many of the environments used last have a process that waits for their next runner, with its imports "
        "done (defaults to 2).",
    )
    parser.add_argument(
        "--orphan-seconds",
        type=_seconds,
        default=900.0,
        metavar="SECONDS",
        help="How long a runner goes on with neither a controller nor this process, before it is stopped (defaults to "
        "900; 0: it is never stopped).",
    )
    parser.add_argument(
        "--new-token",
        action="store_true",
        help="Leave the controller that this machine joined, and print a token for another.",
    )


def node_arguments(options: argparse.Namespace) -> list[str]:
    """Return arguments that give another process the same options of a node."""
    return _arguments_of(options, add_node_options)


def gpu_counts(given: Iterable[str]) -> dict[str, int]:
    """Parse `GPU-H100=2` into {"GPU-H100": 2}."""
    parts = (item.partition("=") for item in given)
    return {label.upper(): int(count) if separator else 1 for label, separator, count in parts}


def as_arguments(options: argparse.Namespace) -> list[str]:
    """Return the arguments that give another process the same options."""
    return _arguments_of(options, add_options)


def _arguments_of(options: argparse.Namespace, add: Callable[[argparse.ArgumentParser], None]) -> list[str]:
    parser = argparse.ArgumentParser()
    add(parser)
    actions = parser._actions[1:]  # noqa: SLF001  # argparse has no public list of them
    return [argument for action in actions for argument in _arguments(action, getattr(options, action.dest))]


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unspecified(host: str) -> bool:
    """Return whether an address means all of a machine's. To a caller elsewhere, it means the caller's own machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _arguments(action: argparse.Action, value: object) -> Iterable[str]:
    (flag,) = action.option_strings
    if value is None or value is False:
        return ()
    if value is True:
        return (flag,)
    if isinstance(value, list):
        return [f"{flag}={one}" for one in value]
    return (f"{flag}={value.absolute() if isinstance(value, Path) else value}",)


def path_option(text: str) -> Path:
    """Parse a path that is not empty. An empty one, as of an unset variable, would be the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: give one, or leave the option out")
    return Path(text)


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not is_host_name(text):
            raise argparse.ArgumentTypeError(
                f"'{text}' is not an address such as 10.0.0.5; --port has the port"
            ) from None
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; use 0 to 65535, 0 for a free one")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1000")
    return int(text)


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1]) if text[-1:].upper() in _UNITS else (text, "")
    if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS and int(number)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 500M or 20G")
    return int(number) * _UNITS.get(unit.upper(), 1)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 0 to 86400")
    return seconds


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36500:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of days from 0 to 36500, such as 7 or 0.5")
    return days


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share from 0 to 1, such as 0.1")
    return share


def _traces_url(text: str) -> str:
    try:
        good = "@" not in urlsplit(checked_url("--traces", text)).netloc
    except InvalidArgument:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(
            "this is not an http or https URL without a password, such as http://127.0.0.1:4318/v1/traces"
        )
    return text


def _region(text: str) -> str:
    try:
        return region_name(text)
    except InvalidArgument as fault:
        raise argparse.ArgumentTypeError(fault.message) from None


def _content_url(text: str) -> str:
    part = r"(?!\.{1,2}(/|$))[0-9A-Za-z._-]{1,100}"
    if re.fullmatch(rf"s3://[0-9a-z][0-9a-z.-]{{2,62}}(/{part}){{0,10}}/?", text) is None:
        shown = re.sub(r"//[^/]*@", "//...@", text[:80])  # a password may be in it
        raise argparse.ArgumentTypeError(f"'{shown}' is no URL of a bucket without credentials, as s3://bucket/prefix")
    return text.rstrip("/")


def _ray_address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if text != "auto" and not (host and separator and port.isascii() and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor an address such as 10.0.0.4:6379")
    return text


def _host_name(text: str) -> str:
    if not is_host_name(text.rstrip(".")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a name such as box.example, without scheme and port")
    return text


def _tls_name(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not is_host_name(text.removeprefix("*.")):  # the first label may be a wildcard
            raise argparse.ArgumentTypeError(
                f"'{text}' is neither a host name nor an address: write box.example, or 10.0.0.5"
            ) from None
    return text


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a network such as 10.0.0.0/8") from None
    if ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise argparse.ArgumentTypeError(f"'{text}' is an address within a network: use {network} for all of it")
    return network


def _trusted_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    network = _network(text)
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        raise argparse.ArgumentTypeError(f"'{text}' is of IPv4 addresses: write it as theirs, such as 10.0.0.0/24")
    if network.is_global or network.is_unspecified or network.is_loopback or network.is_multicast:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a private network such as 10.0.0.0/24, and requests would be readable on their way: "
            "leave the option out, and they go through each node's door"
        )
    return network


def _shared(text: str) -> str:
    """Make the path absolute, for a process with another working directory."""
    path, mode = (text[:-3], text[-3:]) if text.endswith((":rw", ":ro")) else (text, "")
    if not path or any(character in path for character in "\t\n\0"):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form PATH or PATH:rw, such as /models")
    return f"{Path(path).expanduser().absolute()}{mode}"


def database_url(text: str) -> str:
    """Check a database's URL of the command line without showing it. It may contain a password, and messages are kept.

    Raises:
        ArgumentTypeError: it contains a password, or is not the URL of a PostgreSQL database.
    """
    try:
        url = urlsplit(text)
        secret, known = url.password is not None or "password" in url.query, url.scheme.partition("+")[0] in _DATABASES
    except ValueError:
        secret = known = False
    if secret:
        raise argparse.ArgumentTypeError(
            "everybody who lists processes sees a password here: put the URL into FAL_DATABASE_URL"
        )
    if not known:
        raise argparse.ArgumentTypeError(
            "this is not the URL of a PostgreSQL database, such as postgresql://user@host/name"
        )
    return text


def _gpu(text: str) -> str:
    """Check `GPU-H100=2`, or `GPU-H100` for one GPU."""
    label, separator, count = text.partition("=")
    if not label.upper().startswith("GPU"):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form GPU-<model>=<count>, such as GPU-H100=2")
    if separator and not (
        count.isascii() and count.isdigit() and len(count) <= _MOST_DIGITS and int(count) <= _MOST_GPUS
    ):
        raise argparse.ArgumentTypeError(f"'{text}' has no number of GPUs from 0 to {_MOST_GPUS} after =")
    return text
