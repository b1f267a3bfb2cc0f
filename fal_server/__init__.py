"""The controller: builds environments, runs and scales runners, and serves apps. It speaks the fal wire."""

import os

# gRPC watches every fork, and says so on standard error each time. The controller starts programs by exec alone, where
# there is nothing to watch. It must be said before gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
