"""An image model with sizes, and limits in the schema. Its safety checker can be switched off."""

import fal
from fal.toolkit import Image, ImageSizeConstraints, ImageSizeField, ImageSizeInput, get_image_size
from fal.toolkit.image.safety_checker import postprocess_images
from pydantic import BaseModel


class Input(BaseModel):
    color: str = "red"
    image_size: ImageSizeInput = ImageSizeField(
        default="square", constraints=ImageSizeConstraints(max_area=1 << 20, multiple_of=8)
    )


class Output(BaseModel):
    images: list[Image]
    has_nsfw_concepts: list[bool]


class ImageModel(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    @fal.endpoint("/")
    def draw(self, input: Input) -> Output:
        import PIL.Image

        size = get_image_size(input.image_size)
        drawn = [PIL.Image.new("RGB", (size.width, size.height), input.color)]
        checked = postprocess_images(drawn, enable_safety_checker=False)
        images = [Image.from_pil(image, "png", repository="in_memory") for image in checked["images"]]
        return Output(images=images, has_nsfw_concepts=checked["has_nsfw_concepts"])
