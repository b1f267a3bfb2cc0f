"""`fal runners port-forward`: the syntax of ports."""

from __future__ import annotations

import argparse

import pytest

from fal_cli.commands.runners import connections
from fal_cli.commands.runners.port_forward import APP_PORT, Ports, read_ports
from fal_runner.process.ports import PORTS_VARIABLE
from fal_runner.worker.process_tag import TAG_VARIABLE


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8080", Ports(8080, 8080)),
        (":8080", Ports(0, 8080)),
        ("1:65535", Ports(1, 65535)),
        ("app", Ports(0, APP_PORT)),
        (":app", Ports(0, APP_PORT)),
        ("80:app", Ports(80, APP_PORT)),
    ],
)
def test_ports_are_read(text: str, ports: Ports) -> None:
    assert read_ports(text) == ports


@pytest.mark.parametrize("text", ["", ":", "0", "65536", "x", "1:2:3", "app:1", "-1", "1:0", "٣"])
def test_other_words_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write LOCAL:REMOTE, REMOTE or :REMOTE"):
        read_ports(text)


def test_both_files_mean_the_same_by_the_port_of_the_app() -> None:
    assert connections.APP_PORT == APP_PORT


def test_both_ends_use_the_names_of_the_shim() -> None:
    assert (connections.PORTS_VARIABLE, connections.MARK_VARIABLE) == (PORTS_VARIABLE, TAG_VARIABLE)
