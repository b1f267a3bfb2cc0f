"""An app with typed URL inputs and retries."""

import fal
from fal.toolkit import VideoField, VideoNormalizationConfig, VideoValidationConfig
from fal.toolkit.types import DataUri
from fal.toolkit.utils.retry import retry
from pydantic import BaseModel


class Input(BaseModel):
    image: DataUri
    video_url: str = VideoField(
        default="",
        constraints=VideoValidationConfig(max_duration=60),
        normalization=VideoNormalizationConfig(fps=24),
    )


class Upscale(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    def setup(self):
        self.calls = 0

    @retry(max_retries=3, base_delay=0)
    def load(self):
        self.calls += 1
        if self.calls < 2:
            raise OSError("not yet")
        return 2

    @fal.endpoint("/")
    def upscale(self, input: Input) -> dict:
        import PIL.Image

        with DataUri(input.image).as_temp_file() as path, PIL.Image.open(path) as image:
            factor = self.load()
            return {"width": image.width * factor, "calls": self.calls}
