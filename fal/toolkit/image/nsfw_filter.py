"""Estimates how likely an image is not safe for work. Uses Falconsai's classifier; needs torch and transformers."""

from __future__ import annotations

import os
from importlib import import_module

from pydantic import BaseModel, Field

from fal.app.functions import cached, function
from fal.toolkit.image import read_image_from_url
from fal.toolkit.utils.download_utils import FAL_PERSISTENT_DIR

MODEL = "Falconsai/nsfw_image_detection"
_CLASS = "nsfw"


class NSFWImageDetectionInput(BaseModel):
    """The image to classify."""

    image_url: str = Field(description="The URL of the image.", examples=["https://example.com/image.jpg"])


class NSFWImageDetectionOutput(BaseModel):
    """The classifier's result."""

    nsfw_probability: float = Field(description="The probability that the image is not safe for work.")


def get_requirements() -> list[str]:
    """Return the packages that an app needs for this module."""
    return ["torch", "transformers", "pillow"]


@cached
def get_model() -> tuple[object, object]:
    """Return the model and its processor, downloading them once into /data.

    Raises:
        ImportError: transformers is not among the app's requirements.
    """
    os.environ.setdefault("HF_HOME", str(FAL_PERSISTENT_DIR / "models"))
    try:
        transformers = import_module("transformers")
    except ImportError:
        raise ImportError(
            "the safety checker needs torch and transformers: add fal.toolkit.image.nsfw_filter.get_requirements() "
            "to the app's requirements"
        ) from None
    model = transformers.AutoModelForImageClassification.from_pretrained(MODEL)
    return model, transformers.ViTImageProcessor.from_pretrained(MODEL)


def check_nsfw_content(pil_image: object) -> float:
    """Return how likely a Pillow image is not safe for work. It is a probability from 0 to 1.

    Raises:
        ValueError: the model has no such class.
    """
    torch = import_module("torch")
    model, processor = get_model()
    with torch.no_grad():
        inputs = processor(images=pil_image, return_tensors="pt")  # type: ignore[operator]  # of transformers
        outputs = model(**inputs)  # type: ignore[operator]  # as above
    labels = model.config.label2id  # type: ignore[attr-defined]  # as above
    if _CLASS not in labels:
        raise ValueError(f"{MODEL} has no class {_CLASS!r} but {', '.join(labels)}")
    return float(torch.softmax(outputs.logits.squeeze(), dim=0)[int(labels[_CLASS])].item())


def run_nsfw_estimation(input: NSFWImageDetectionInput) -> NSFWImageDetectionOutput:  # noqa: A002 - published
    """Classify the image at an address.

    Raises:
        fastapi.HTTPException: 422, if it is not an image or cannot be downloaded.
    """
    return NSFWImageDetectionOutput(nsfw_probability=check_nsfw_content(read_image_from_url(input.image_url)))


@function(requirements=get_requirements(), machine_type="GPU-A6000", serve=True)
def run_nsfw_estimation_on_fal(input: NSFWImageDetectionInput) -> NSFWImageDetectionOutput:  # noqa: A002 - published
    """Run `run_nsfw_estimation` as a separate app."""
    return run_nsfw_estimation(input)
