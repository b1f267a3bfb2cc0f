"""Limits in schemas, typed addresses and decoded images. The safety checker has a fake model."""

from __future__ import annotations

import io
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from fastapi import HTTPException
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from fal.toolkit import (
    ImageField,
    ImageSizeConstraints,
    ImageSizeField,
    ImageSizeInput,
    ImageValidationConfig,
    VideoField,
    VideoNormalizationConfig,
    VideoValidationConfig,
    to_xfal,
)
from fal.toolkit.image import filter_by, preprocess_image, read_image_from_url
from fal.toolkit.types import DataUri, FileInput, HttpsUrl, ImageInput


def test_limits_are_checked_when_they_are_made() -> None:
    assert to_xfal(ImageValidationConfig(max_file_size=10, timeout=5)) == {"max_file_size": 10}
    assert to_xfal(ImageSizeConstraints(min_width=64, max_width=64)) == {"min_width": 64, "max_width": 64}
    with pytest.raises(ValueError, match="min_fps is 30, which is above max_fps, 24"):
        VideoValidationConfig(min_fps=30, max_fps=24)
    with pytest.raises(ValueError, match="together"):
        ImageValidationConfig(min_aspect_ratio=1.0)


def with_example(schema: dict[str, object]) -> None:
    schema["examples"] = [["x"]]


class Input(BaseModel):
    size: ImageSizeInput = ImageSizeField(
        default="square", constraints=ImageSizeConstraints(max_area=1 << 20, multiple_of=8), ui={"important": True}
    )
    films: list[str] = VideoField(
        constraints=VideoValidationConfig(max_duration=60),
        combined_constraints=VideoValidationConfig(max_duration=90),
        normalization=VideoNormalizationConfig(fps=24),
        json_schema_extra=with_example,
    )
    plain: str = VideoField(default="", combined_constraints=VideoValidationConfig())
    picture: str = ImageField("", json_schema_extra={"ui": {"field": "mask"}})


def test_limits_stand_in_the_schema() -> None:
    fields = Input.model_json_schema()["properties"]
    assert fields["size"]["x-fal"] == {"max_area": 1 << 20, "multiple_of": 8}
    assert fields["size"]["ui"] == {"important": True}
    assert fields["films"]["x-fal"] == {
        "max_duration": 60,
        "combined": {"max_duration": 90},
        "normalization": {"fps": 24},
    }
    assert (fields["films"]["examples"], fields["films"]["ui"]) == ([["x"]], {"field": "video"})
    assert "x-fal" not in fields["plain"]
    assert fields["picture"]["ui"] == {"field": "mask"}
    assert Input.model_json_schema()["required"] == ["films"]


def picture(mode: str = "RGB", size: tuple[int, int] = (3, 2), **options: object) -> str:
    with io.BytesIO() as file:
        PIL.Image.new(mode, size, 200 if mode == "L" else (200,) * len(mode)).save(file, "PNG", **options)
        return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def test_an_address_is_decoded_upright() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = read_image_from_url(picture("L", exif=exif))
    assert (turned.width, turned.height, turned.mode) == (2, 3, "RGB")  # type: ignore[attr-defined]
    as_it_is = read_image_from_url(picture("L"), convert_to_rgb=False, fix_orientation=False)
    assert (as_it_is.width, as_it_is.mode) == (3, "L")  # type: ignore[attr-defined]
    assert read_image_from_url(picture("L")) is read_image_from_url(picture("L"))
    several = PIL.Image.new("RGB", (4, 4))
    assert preprocess_image(several).width == 4
    for wrong in ("data:text/plain,hello", "file:///etc/passwd"):
        with pytest.raises(HTTPException, match="Could not load image") as raised:
            read_image_from_url(wrong)
        assert raised.value.status_code == 422
    with pytest.raises(HTTPException, match="more than the 9 bytes"):
        read_image_from_url(picture("RGBA"), max_size=9)


def test_addresses_as_types() -> None:
    class Model(BaseModel):
        file: FileInput
        image: ImageInput = Field(description="An image.")

    made = Model.model_validate({"file": " data:text/plain,hello ", "image": picture()})
    assert isinstance(made.file, DataUri)
    with made.file.as_temp_file() as path:
        assert path.read_text() == "hello"
    assert not path.exists()
    assert made.image.to_pil().width == 3
    assert isinstance(TypeAdapter(HttpsUrl).validate_python("https://example.com/a"), HttpsUrl)
    for wrong in ("http://example.com", "https://localhost/x", "data:", "https://example.com/" + "x" * 2048):
        with pytest.raises(ValidationError):
            TypeAdapter(HttpsUrl).validate_python(wrong)
    formats = [kind["format"] for kind in Model.model_json_schema()["properties"]["file"]["anyOf"]]
    assert formats == ["https-url", "data-uri"]


LIBRARIES = {
    "torch.py": """
import contextlib
no_grad = contextlib.nullcontext
class Tensor(list):
    def squeeze(self): return self
class Number(float):
    def item(self): return float(self)
def softmax(values, dim): return [Number(value / sum(values)) for value in values]
""",
    "transformers.py": """
from types import SimpleNamespace
from torch import Tensor
class AutoModelForImageClassification:
    config = SimpleNamespace(label2id={"normal": 0, "nsfw": 1})
    @classmethod
    def from_pretrained(cls, name): return cls()
    def __call__(self, picture): return SimpleNamespace(logits=Tensor([1.0, float(picture.getpixel((0, 0))[0])]))
class ViTImageProcessor:
    @classmethod
    def from_pretrained(cls, name): return lambda images, return_tensors: {"picture": images}
""",
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake torch and transformers: the redder an image, the less safe."""
    for name, text in LIBRARIES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("torch", "transformers"):
        sys.modules.pop(name, None)


def test_flagged_images_are_blackened(model: None) -> None:
    from fal.toolkit.image import nsfw_filter, safety_checker

    red, black = PIL.Image.new("RGB", (3, 2), (9, 0, 0)), PIL.Image.new("RGBA", (2, 2))
    made = safety_checker.postprocess_images([red, black])
    assert made["has_nsfw_concepts"] == [True, False]
    first, second = made["images"]
    assert isinstance(first, PIL.Image.Image)
    assert (first.size, first.getpixel((0, 0)), second) == ((3, 2), (0, 0, 0), black)
    assert safety_checker.postprocess_images([red], enable_safety_checker=False)["images"] == [red]
    assert safety_checker.run_safety_checker_v2([red], nsfw_threshold=0.95) == [False]
    asked = nsfw_filter.NSFWImageDetectionInput(image_url=picture())
    assert nsfw_filter.run_nsfw_estimation(asked).nsfw_probability == pytest.approx(200 / 201)
    assert nsfw_filter.run_nsfw_estimation_on_fal.options["requirements"] == ["torch", "transformers", "pillow"]
    assert filter_by([], [red]) == []
