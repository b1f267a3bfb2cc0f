"""Limits of images and videos, as `x-fal` in a schema. Forms can then check them before a request."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypedDict

_PAIRED = ("width", "height", "area", "frames", "duration", "fps", "aspect_ratio")
# Settings for fetching a file, which callers cannot influence.
_NOT_OF_A_SCHEMA = frozenset({"timeout"})


class _Limits:
    """Checks that some value can satisfy all limits."""

    def __post_init__(self) -> None:
        for name in _PAIRED:
            least, most = getattr(self, f"min_{name}", None), getattr(self, f"max_{name}", None)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{type(self).__name__}: min_{name} is {least}, which is above max_{name}, {most}")
        if (getattr(self, "min_aspect_ratio", None) is None) != (getattr(self, "max_aspect_ratio", None) is None):
            raise ValueError(f"{type(self).__name__}: give min_aspect_ratio and max_aspect_ratio together, or neither")


@dataclass(frozen=True)
class ImageSizeConstraints(_Limits):
    """Sizes that a model can draw, in pixels. An aspect ratio is width / height; nothing here enforces them."""

    min_width: int | None = None
    min_height: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    min_area: int | None = None
    max_area: int | None = None
    multiple_of: int | None = None
    min_aspect_ratio: float | None = None
    max_aspect_ratio: float | None = None


class ImageValidationOptions(TypedDict, total=False):
    """The fields of `ImageValidationConfig` as keyword arguments."""

    max_file_size: int | None
    min_width: int | None
    min_height: int | None
    max_width: int | None
    max_height: int | None
    min_aspect_ratio: float | None
    max_aspect_ratio: float | None
    timeout: float | None


@dataclass(frozen=True)
class ImageValidationConfig(_Limits):
    """Images that an endpoint accepts: `max_file_size` in bytes, `timeout` in seconds. Nothing here enforces them."""

    max_file_size: int | None = None
    min_width: int | None = None
    min_height: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    min_aspect_ratio: float | None = None
    max_aspect_ratio: float | None = None
    timeout: float = 20.0


class VideoValidationOptions(TypedDict, total=False):
    """The fields of `VideoValidationConfig` as keyword arguments."""

    max_file_size: int | None
    min_width: int | None
    min_height: int | None
    max_width: int | None
    max_height: int | None
    min_area: int | None
    max_area: int | None
    min_aspect_ratio: float | None
    max_aspect_ratio: float | None
    min_frames: int | None
    max_frames: int | None
    min_duration: float | None
    max_duration: float | None
    min_fps: float | None
    max_fps: float | None


@dataclass(frozen=True)
class VideoValidationConfig(_Limits):
    """Videos that an endpoint accepts: bytes, pixels, frames, seconds, frames per second.

    Nothing here enforces them.
    """

    max_file_size: int | None = None
    min_width: int | None = None
    min_height: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    min_area: int | None = None
    max_area: int | None = None
    min_aspect_ratio: float | None = None
    max_aspect_ratio: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    min_duration: float | None = None
    max_duration: float | None = None
    min_fps: float | None = None
    max_fps: float | None = None


@dataclass(frozen=True)
class VideoNormalizationConfig(_Limits):
    """How an endpoint normalizes an accepted video. It scales, cuts or resamples it to these limits."""

    min_width: int | None = None
    min_height: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    min_area: int | None = None
    max_area: int | None = None
    max_duration: float | None = None
    fps: float | None = None


def to_xfal(
    config: ImageSizeConstraints | ImageValidationConfig | VideoValidationConfig | VideoNormalizationConfig,
) -> dict[str, object]:
    """Return the limits that are set, as `x-fal` of a schema."""
    given = dataclasses.asdict(config)
    return {name: limit for name, limit in given.items() if limit is not None and name not in _NOT_OF_A_SCHEMA}
