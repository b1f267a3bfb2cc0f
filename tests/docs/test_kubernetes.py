"""The manifests say to `fal` what it understands. They refer to one another by names that they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fal_cli.main import build_parser
from tests.support.controller import ROOT

FILES = sorted((ROOT / "docs/howto/kubernetes").glob("*.yaml"))
PAGE = (ROOT / "docs/howto/kubernetes.md").read_text()
CONFIGURATION = (ROOT / "docs/reference/configuration.md").read_text()


def resources() -> Iterator[dict[str, Any]]:
    for path in FILES:
        yield from yaml.safe_load_all(path.read_text())


def pods() -> list[dict[str, Any]]:
    return [found["spec"]["template"] for found in resources() if found["kind"] == "StatefulSet"]


def containers() -> list[dict[str, Any]]:
    return [container for pod in pods() for container in pod["spec"]["containers"]]


OURS = [container for container in containers() if "fal-grpc" in container["image"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_page_names_each_file(path: Path) -> None:
    assert f"(kubernetes/{path.name})" in PAGE


@pytest.mark.parametrize("container", OURS, ids=lambda container: container["name"])
def test_fal_understands_what_a_container_runs(container: dict[str, Any]) -> None:
    orders = [container["args"]]
    if "lifecycle" in container:
        first, *words = container["lifecycle"]["preStop"]["exec"]["command"]
        assert first == "fal"
        orders.append(words)
    for order in orders:
        words = [word.replace("$(POD_IP)", "10.0.0.5") for word in order]  # as Kubernetes does
        build_parser(words).parse_args(words)
    assert container["image"] in PAGE


@pytest.mark.parametrize("container", OURS, ids=lambda container: container["name"])
def test_each_variable_is_one_that_fal_reads(container: dict[str, Any]) -> None:
    for variable in container["env"]:
        name = variable["name"]
        assert f"`{name}`" in CONFIGURATION or any(f"$({name})" in word for word in container["args"])


def test_services_lead_to_pods_that_listen_there() -> None:
    labeled = {pod["metadata"]["labels"]["app"]: pod["spec"]["containers"][0] for pod in pods()}
    services = [found for found in resources() if found["kind"] == "Service"]
    assert len(services) == len(labeled)
    for service in services:
        container = labeled[service["spec"]["selector"]["app"]]
        listens = {port["containerPort"] for port in container["ports"]}
        assert {port.get("targetPort", port["port"]) for port in service["spec"]["ports"]} == listens
        assert [port for port in listens if f"--port={port}" in container.get("args", [f"--port={port}"])]


def test_policies_name_pods_that_there_are() -> None:
    labels = {pod["metadata"]["labels"]["app"] for pod in pods()}
    for policy in (found for found in resources() if found["kind"] == "NetworkPolicy"):
        named = [policy["spec"]["podSelector"], *(each["podSelector"] for each in policy["spec"]["ingress"][0]["from"])]
        assert {selector["matchLabels"]["app"] for selector in named} <= labels
