"""A revision: one immutable version of an app's code. It has its runners' requirements."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TypeAlias

from fal_server.core.checks import check_bounds
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL, AccountId, AppId, app_id_of_row
from fal_server.core.scaling import Scaling

MOST_GPUS = 64
_MOST_PORT = 65_535
_LONGEST_PATH = 2000
_SHA256 = re.compile(r"[0-9a-f]{64}")

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """How an app's Python environment is built.

    Attributes:
        kind: `virtualenv`, `conda`, `container` or `local`.
        configuration: as the client sent it, such as python_version, requirements (a list, or a list of layers) and
            resolver. For a container, `image`, and path and hash of each file that its Dockerfile copies
            (`context_files`).
        account: whose apps run in it. Accounts share none, because an installer fetched its packages with one account's
            passwords.
    """

    kind: str
    configuration: Mapping[str, Json] = field(repr=False)  # it may hold image secrets and registry passwords
    account: AccountId = LOCAL

    @property
    def env_id(self) -> str:
        """The hash that names the build. A different password does not change it."""
        what: list[Json] = [self.kind, self._without_passwords()]
        if self.account != LOCAL:  # environments of the first account are older than accounts
            what.append(self.account)
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _without_passwords(self) -> Mapping[str, Json]:
        """Return the configuration without the image's secrets and passwords. It lacks the deployer's directory."""
        image = self.configuration.get("image")
        if self.kind != "container" or not isinstance(image, Mapping):
            return self.configuration
        kept: dict[str, Json] = {key: value for key, value in image.items() if key != "docker_context_dir"}
        for key in ("secrets", "registries"):
            value = kept.get(key)
            if isinstance(value, Mapping):
                kept[key] = sorted(value)
        return {**self.configuration, "image": kept}

    def with_context(self, files: Sequence[AppFile]) -> EnvironmentSpec:
        """Return it with the files that a container's Dockerfile copies. They determine the image."""
        if self.kind != "container":
            return self
        context = [[file.relative_path, file.hash] for file in sorted(files, key=lambda file: file.relative_path)]
        return replace(self, configuration={**self.configuration, "context_files": context})

    @property
    def runs_itself(self) -> bool:
        """Whether it is an image that runs unchanged, without app code."""
        image = self.configuration.get("image")
        return self.kind == "container" and isinstance(image, Mapping) and image.get("use_isolate") is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A serialized Python object. It is stored as a blob and only loaded inside the app's own environment.

    Attributes:
        method: the importable module that loads it, such as `cloudpickle`.
        blob: the SHA-256 of the stored bytes.
    """

    method: str
    blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFile:
    """A file that belongs to the code.

    Attributes:
        hash: the name under which it was uploaded, 64 hexadecimal digits.
        relative_path: its path below the app's directory.

    Raises:
        InvalidArgument: the hash is malformed, or the path leads out of the directory.
    """

    hash: str
    relative_path: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.hash):
            raise InvalidArgument("hash", "hash is not a SHA-256 of 64 hexadecimal digits")
        path = PurePosixPath(self.relative_path)
        if path.is_absolute() or ".." in path.parts or not path.parts or not self.relative_path.isprintable():
            raise InvalidArgument(
                "relative_path", "relative_path must lie below the app's directory: no leading '/', no '..'"
            )


class HealthMethod(StrEnum):
    """The HTTP method of a health check."""

    GET = "GET"
    POST = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How a ready runner is checked; durations are in seconds.

    Raises:
        InvalidArgument: the path is malformed, or a number is too small.
    """

    path: str
    start_period_seconds: int = 30
    timeout_seconds: int = 5
    failure_threshold: int = 3
    call_regularly: bool = True
    allow_on_busy: bool = False
    method: HealthMethod = HealthMethod.GET

    def __post_init__(self) -> None:
        path = self.path
        if not path.startswith("/") or not path.isprintable() or " " in path or len(path) > _LONGEST_PATH:
            raise InvalidArgument(
                "path", "path is not a path: begin with '/', and leave out spaces and control characters"
            )
        check_bounds("start_period_seconds", self.start_period_seconds, 0)
        check_bounds("timeout_seconds", self.timeout_seconds, 1)
        check_bounds("failure_threshold", self.failure_threshold, 1)


def check_limits(
    *,
    exposed_port: int | None,
    metrics_port: int | None,
    num_gpus: int | None,
    termination_grace_seconds: int | None,
) -> None:
    """Check the numbers that a request with code shares with its revision. None means not set.

    Raises:
        InvalidArgument: one is out of range.
    """
    check_bounds("exposed_port", exposed_port, 1, _MOST_PORT)
    check_bounds("metrics_port", metrics_port, 1, _MOST_PORT)
    check_bounds("num_gpus", num_gpus, 0, MOST_GPUS)
    check_bounds("termination_grace_period_seconds", termination_grace_seconds, 0, MAX_GRACE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One version of an app.

    Attributes:
        function: the pickled callable; None if `entrypoint` ("module:attr") says what to run.
        setup: a pickled callable whose result becomes the function's first argument.
        exposed_port: the port in the code; None for a function without HTTP. Each runner gets a free port instead,
            which is passed to the callable.
        secret_names: the secrets that its runners get; None means all that are exposed by default.
        scaling: the code's settings.
        metadata: data from the deployer, such as the OpenAPI description.

    Raises:
        InvalidArgument: a number is out of range, see `check_limits`.
    """

    account: AccountId
    revision_id: str
    app_name: str
    environment: str
    created_at: datetime
    environments: tuple[EnvironmentSpec, ...]
    function: Payload | None
    entrypoint: str | None
    setup: Payload | None = None
    run_on_main_thread: bool = False
    exposed_port: int | None = None
    metrics_port: int | None = None
    num_gpus: int | None = None
    files: tuple[AppFile, ...] = ()
    secret_names: tuple[str, ...] | None = None
    scaling: Scaling
    health_check: HealthCheck | None = None
    termination_grace_seconds: int = 5
    private_logs: bool = False
    retry_config: str | None = None
    skip_retry_conditions: tuple[str, ...] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict[str, Json])
    source_code: str | None = None

    def __post_init__(self) -> None:
        check_limits(
            exposed_port=self.exposed_port,
            metrics_port=self.metrics_port,
            num_gpus=self.num_gpus,
            termination_grace_seconds=self.termination_grace_seconds,
        )

    @property
    def app_id(self) -> AppId:
        """The app's identity; other accounts may use the same name."""
        return app_id_of_row(self.account, self.app_name)

    @property
    def serves_http(self) -> bool:
        """Whether its runners listen on a port."""
        return self.exposed_port is not None


MAX_GRACE_SECONDS = 30
