"""Calls a runner's app like the controller. It goes through the gate of its port."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import replace

from fal_server.core.addresses import RunnerAddress, gate_key_of
from fal_server.core.lifecycle import Observation
from fal_server.core.runners import MetricsAccess, Runner
from fal_server.http.gateway.upstream import knock_and_proof


def address_of(runner: Runner, ready: Observation) -> RunnerAddress:
    """Return the address of a ready runner."""
    return RunnerAddress(ready.host, ready.port or 0, gate_key_of(runner.token) if ready.gated else "")


def metrics_address_of(runner: Runner, ready: Observation, access: MetricsAccess | None = None) -> RunnerAddress:
    """Return the address of a ready runner's metrics.

    Args:
        access: who can connect, if it is known from a later observation.
    """
    seen = replace(
        runner, host=ready.host, metrics_port=ready.metrics_port, metrics_access=access or ready.metrics_access
    )
    assert seen.metrics_address is not None
    return seen.metrics_address


def ask(address: RunnerAddress, method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Send a request without a body. Return the body of the answer, whose status must be 200."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    connection.connect()
    if address.gate_key:
        knock, proof = knock_and_proof(address.gate_key)
        connection.sock.sendall(knock)
        answered = b""
        while len(answered) < len(proof):
            answered += connection.sock.recv(len(proof) - len(answered))
        assert answered == proof
    connection.request(method, path, headers=dict(headers or {}))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body
    return body
