"""Videos for endpoints' inputs and outputs."""

from __future__ import annotations

from pydantic import ConfigDict

from fal.toolkit.file.file import File
from fal.toolkit.pydantic import VideoField

__all__ = ["Video", "VideoField"]


class Video(File):
    """A video file."""

    model_config = ConfigDict(json_schema_extra={"ui": {"field": "video"}})
