"""Audio files for endpoints' inputs and outputs."""

from __future__ import annotations

from pydantic import ConfigDict

from fal.toolkit.file.file import File
from fal.toolkit.pydantic import AudioField

__all__ = ["Audio", "AudioField"]


class Audio(File):
    """An audio file."""

    model_config = ConfigDict(json_schema_extra={"ui": {"field": "audio"}})
