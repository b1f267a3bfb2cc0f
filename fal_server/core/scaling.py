"""An app's scaling settings, their defaults and their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fal_server.core.checks import check_bounds
from fal_server.core.faults import InvalidArgument

# name -> (least, most). docs/explanation/architecture.md, "How many runners", explains them.
BOUNDS: dict[str, tuple[int, int]] = {
    "keep_alive": (0, 7 * 24 * 3600),
    "min_concurrency": (0, 10_000),
    "max_concurrency": (0, 10_000),
    "concurrency_buffer": (0, 10_000),
    "concurrency_buffer_perc": (0, 1_000),
    "scaling_delay": (0, 24 * 3600),
    "max_multiplexing": (1, 10_000),
    "request_timeout": (1, 7 * 24 * 3600),
    "request_start_timeout": (0, 7 * 24 * 3600),
    "startup_timeout": (1, 24 * 3600),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many runners an app may have, and its timeouts. Durations are in whole seconds.

    Raises:
        InvalidArgument: a value is out of range, or no machine type is named; the controller knows which ones exist.
    """

    keep_alive: int = 10
    min_concurrency: int = 0
    max_concurrency: int = 2
    concurrency_buffer: int = 0
    concurrency_buffer_perc: int = 0
    scaling_delay: int = 0
    max_multiplexing: int = 1
    request_timeout: int = 3600
    request_start_timeout: int | None = None
    startup_timeout: int = 600
    machine_types: tuple[str, ...] = ("XS",)
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            check_bounds(name, getattr(self, name), least, most)
        if self.min_concurrency > self.max_concurrency:
            raise InvalidArgument(
                "min_concurrency",
                f"min_concurrency is {self.min_concurrency}, above max_concurrency {self.max_concurrency}: "
                "raise the one or lower the other",
            )
        if not self.machine_types:
            raise InvalidArgument("machine_types", "machine_types is empty: name at least one machine type")


def carried_over(kept: Scaling, code: Scaling) -> Scaling:
    """Return an app's settings after it moved to another revision.

    max_multiplexing, startup_timeout and machine_types describe the code, so every revision brings its own; the app
    keeps the others.
    """
    return replace(
        kept,
        max_multiplexing=code.max_multiplexing,
        startup_timeout=code.startup_timeout,
        machine_types=code.machine_types,
    )
