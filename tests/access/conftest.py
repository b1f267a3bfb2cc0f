"""Fixtures of other folders. They are the platform of the services' tests, and the gRPC server with its keys."""

from __future__ import annotations

from tests.grpc.conftest import stack
from tests.services.conftest import idle
from tests.support.schema import schema

__all__ = ["idle", "schema", "stack"]
