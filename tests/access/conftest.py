"""The platform of the services' tests and the gRPC server of its own, for tests of who may do what."""

from __future__ import annotations

from tests.grpc.conftest import plane
from tests.services.conftest import idle

__all__ = ["idle", "plane"]
