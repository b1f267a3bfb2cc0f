"""An app that takes an archive and returns one of its files."""

import fal
from fal.toolkit import CompressedFile, File
from pydantic import BaseModel


class Input(BaseModel):
    archive: CompressedFile


class Output(BaseModel):
    names: list[str]
    first: File


class Archive(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    @fal.endpoint("/")
    def unpack(self, input: Input) -> Output:
        paths = sorted(input.archive.glob("*.txt"))
        first = File.from_path(paths[0], "text/plain", repository="in_memory", fallback_repository=None)
        return Output(names=[path.name for path in paths], first=first)
