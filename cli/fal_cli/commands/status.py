"""`fal status`: shows the controller on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from fal_cli.controller_process import ControllerProcess, add_state_dir_option, find_controller, option_of
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.options import add_output_options
from fal_cli.parser import FalParser
from fal_cli.presentation.nodes import node_document, shown_bounds, shown_gpus
from fal_cli.presentation.output import print_error, print_line, print_note, write_document
from fal_cli.presentation.ray import shown_ray
from fal_cli.presentation.trusted import shown_trusted

if TYPE_CHECKING:
    from fal.api import NodeInfo


def add_arguments(parser: FalParser) -> None:
    """Declare `fal status`."""
    parser.description = "Show the controller on this machine. Exits with 1 if none runs."
    add_state_dir_option(parser)
    add_output_options(parser)
    parser.set_defaults(handler=_status)


def _status(args: argparse.Namespace) -> int:
    controller = find_controller(args.state_dir)
    if controller is None:
        if args.output == "pretty":
            print_error(f"no controller runs on {args.state_dir}; `fal up -d{option_of(args.state_dir)}` starts one")
        else:
            write_document(args.output, {"running": False, "state_dir": str(args.state_dir)})
        return ExitCode.FAILED
    if controller.standby:
        return _show_standby(args, controller)
    counted, nodes = _count(controller)
    document = {**_describe(controller), **counted}
    if args.output != "pretty":
        write_document(args.output, document)
        return ExitCode.OK
    states = document["runners_by_state"]
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) if isinstance(states, dict) else ""
    if document["apps"] is None:
        print_note(f"Apps and runners are not known: {document['problem']}")
    lines = [
        f"Controller:  {controller.version}, running (pid {controller.pid})",
        f"Address:     {controller.host} (gRPC and HTTP), 127.0.0.1:{controller.grpc_port} (gRPC alone)",
        f"State dir:   {controller.state_dir}",
        *([f"Isolation:   {controller.isolation}"] if controller.isolation else []),
        *([f"Shared:      {', '.join(controller.shared)}"] if controller.shared else []),
        f"Uptime:      {timedelta(seconds=int(controller.uptime_seconds()))}",
    ]
    if document["apps"] is not None:
        lines.append(f"Apps:        {document['apps']}")
        lines.append(f"Runners:     {document['runners']}" + (f" ({counts})" if counts else ""))
    if to_adopt := document.get("to_adopt"):
        lines.append(f"To adopt:    {to_adopt} runners of nodes, which get no requests yet")
    lines += _shown_settings(document)
    for node in nodes:
        if len(nodes) > 1:
            lines.append(f"Node:        {node.name}" + (f" ({node.trouble})" if node.trouble else ""))
        if node.region:
            lines.append(f"Region:      {node.region}")
        lines.append(f"Limits:      {shown_bounds(node.bounds)}")
        lines.append(f"GPUs:        {shown_gpus(node.gpus)}")
        lines += [f"             {gpu.id} {gpu.label}: runner {gpu.runner_id}" for gpu in node.gpus if gpu.runner_id]
    print_line("\n".join(lines))
    return ExitCode.OK


def _shown_settings(document: Mapping[str, object]) -> list[str]:
    """Return what is known of the lease, Ray, networks, content and payloads."""
    lines: list[str] = []
    if isinstance(lease := document.get("lease"), dict):
        lines += _shown_lease(lease)
    if isinstance(ray := document.get("ray"), dict):
        lines.append(f"Ray:         {shown_ray(ray)}")
    if isinstance(trusted := document.get("trusted"), dict):
        lines += shown_trusted(trusted)
    if isinstance(content := document.get("content"), dict):
        trouble = content.get("trouble")
        lines.append(f"Content:     {content.get('where')}" + (f" ({trouble})" if trouble else ""))
    if document.get("request_payloads"):
        lines.append("Payloads:    inputs and outputs of direct requests are kept (--request-payloads)")
    return lines


def _show_standby(args: argparse.Namespace, controller: ControllerProcess) -> int:
    if args.output != "pretty":
        write_document(args.output, {**_describe(controller), "standby_for": controller.standby})
        return ExitCode.OK
    lines = [
        f"Controller:  {controller.version}, waiting (pid {controller.pid})",
        f"Owner:       {controller.standby}",
        f"Address:     {controller.host} (passes gRPC and HTTP on to the owner)",
        f"State dir:   {controller.state_dir}",
        f"Uptime:      {timedelta(seconds=int(controller.uptime_seconds()))}",
    ]
    print_line("\n".join(lines))
    return ExitCode.OK


def _shown_lease(lease: dict[str, object]) -> list[str]:
    held = "held" if lease.get("certain") else "not renewed: the database does not answer"
    waiting = lease.get("waiting")
    others = [str(each) for each in waiting] if isinstance(waiting, list) else []
    return [
        f"Lease:       epoch {lease.get('epoch')}, {held}",
        *[f"Standby:     {other}" for other in others or ["none"]],
    ]


def _describe(controller: ControllerProcess) -> dict[str, object]:
    return {
        "running": True,
        "version": controller.version,
        "pid": controller.pid,
        "url": controller.url,
        "port": controller.port,
        "grpc_port": controller.grpc_port,
        "state_dir": str(controller.state_dir),
        "isolation": controller.isolation.partition(":")[0],
        "shared": list(controller.shared),
        "uptime_seconds": int(controller.uptime_seconds()),
    }


def _count(controller: ControllerProcess) -> tuple[dict[str, object], Sequence[NodeInfo]]:
    """Return how many apps and runners all accounts have, and the nodes. The count needs no key."""
    from fal.api import FalError, SyncServerlessClient

    try:
        with SyncServerlessClient(host=f"http://127.0.0.1:{controller.grpc_port}", api_key=controller.key()) as client:
            nodes = client.runners.nodes().nodes
    except (CommandError, FalError):
        nodes = None
    try:
        counted = controller.ask("GET", "/status")
    except CommandError as error:
        counted = {"apps": None, "runners": None, "runners_by_state": None, "problem": str(error)}
    described = None if nodes is None else [node_document(node) for node in nodes]
    return {**counted, "nodes": described}, nodes or ()
