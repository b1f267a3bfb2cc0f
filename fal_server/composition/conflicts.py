"""Options that are right each by itself, and wrong together."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping

from fal_runner.isolation.levels import Isolation
from fal_server.composition.options import is_loopback


def conflict(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return what is wrong with a controller's options together. It is empty if nothing is."""
    return (
        gpu_conflict(options.gpu)
        or _of_ports(options)
        or _of_content(options)
        or _of_standby(options, environ)
        or _of_ray(options)
        or _of_isolation(options)
        or _of_tls(options)
    )


def gpu_conflict(given: Iterable[str]) -> str:
    """Return which label of GPUs is given twice. It is empty if none is."""
    seen: set[str] = set()
    for label in (item.partition("=")[0].upper() for item in given):
        if label in seen:
            return f"--gpu names {label} twice: give each label once, with the number of all its GPUs"
        seen.add(label)
    return ""


def _of_ports(options: argparse.Namespace) -> str:
    if options.port == options.grpc_port != 0:
        return (
            f"--port and --grpc-port are both {options.port}: --port answers gRPC, too; leave --grpc-port out, or "
            "choose another"
        )
    return ""


def _of_content(options: argparse.Namespace) -> str:
    if options.content is not None and options.content_dir is not None:
        return "--content and --content-dir are two places for the same: leave one out"
    return ""


def _of_standby(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return what a standby lacks. It would take over without the code of the apps."""
    if not options.standby:
        return ""
    if options.database is None and not environ.get("FAL_DATABASE_URL"):
        return "--standby needs the PostgreSQL database of the other: --database"
    if options.content_dir is None and options.content is None:
        return (
            "--standby needs --content, a bucket, or --content-dir, a directory, that this controller and the others "
            "share: what takes over needs the code of the apps"
        )
    return ""


def _of_ray(options: argparse.Namespace) -> str:
    if options.engine != "ray" and (
        options.ray_address != "auto" or options.ray_python is not None or options.engine_grows
    ):
        return "--ray-address, --ray-python and --engine-grows go with --engine ray"
    return ""


def _of_isolation(options: argparse.Namespace) -> str:
    wanted, required = options.isolation, options.require_isolation
    if wanted is not None and required is not None and Isolation(wanted).strength < Isolation(required).strength:
        return f"--isolation {wanted} is weaker than --require-isolation {required}: leave one out"
    return ""


def _of_tls(options: argparse.Namespace) -> str:
    """Return what TLS lacks, or that keys would travel in plaintext."""
    if (options.tls_cert is None) != (options.tls_key is None):
        return "--tls-cert and --tls-key belong together: give both, or none for a local authority"
    if options.tls or options.tls_cert or options.tls_name:
        return ""
    if not is_loopback(options.host):
        return (
            f"--host {options.host} can be reached from other machines, and keys would travel in plaintext: add --tls "
            "(with --tls-name for the name that they use) or --tls-cert and --tls-key"
        )
    if options.tls_client_ca:
        return "--tls-client-ca needs TLS: add --tls, or --tls-cert and --tls-key"
    return ""
