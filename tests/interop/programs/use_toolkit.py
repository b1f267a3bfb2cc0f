"""Uses files and images of the toolkit without any network."""

import base64
from functools import partial

from fal.exceptions import AppException, FalServerlessException, FieldException, FileTooLargeError, RequestCancelledException
from fal.toolkit import Audio, File, Image, ImageSizeInput, Video
from fal.toolkit.image import ImageSize, get_image_size

say = partial(print, ">")  # the test compares these lines alone

file = File.from_bytes(b"some words", content_type="text/plain", file_name="words.txt", repository="in_memory")
say(file.model_dump() if hasattr(file, "model_dump") else file.dict())
say(file.as_bytes(), file.file_size)
image = Image.from_bytes(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAADElEQVR4nGNgwA0AABoAAZqcG5sAAAAASUVORK5CYII="),
    format="png",
    repository="in_memory",
)
say(image.content_type, image.width, image.height, image.to_pil().size)
for size in ("square_hd", "landscape_16_9", ImageSize(width=100, height=50)):
    say(get_image_size(size))
say([kind.__mro__[1].__name__ for kind in (Audio, Video, Image)], ImageSizeInput is not None)
for error in (FieldException("text", "is bad"), AppException("broken", 418), RequestCancelledException("gone")):
    say(type(error).__name__, vars(error), isinstance(error, Exception))
say(issubclass(FileTooLargeError, FalServerlessException))
