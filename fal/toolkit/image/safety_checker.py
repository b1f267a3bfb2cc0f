"""Blackens images that are not safe for work. Needs torch and transformers; version 1 also needs diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TypedDict, cast

from fal.app.functions import cached
from fal.toolkit.image import Sized, filter_by
from fal.toolkit.image.image import PillowImage
from fal.toolkit.image.nsfw_filter import check_nsfw_content

_STABLE_DIFFUSION = "CompVis/stable-diffusion-safety-checker"


@cached
def load_safety_checker() -> tuple[object, object]:
    """Return Stable Diffusion's feature extractor and safety checker, on the GPU."""
    torch = import_module("torch")
    kind = import_module("diffusers.pipelines.stable_diffusion.safety_checker").StableDiffusionSafetyChecker
    extractor = import_module("transformers").AutoFeatureExtractor.from_pretrained(
        _STABLE_DIFFUSION, torch_dtype="float16"
    )
    return extractor, kind.from_pretrained(_STABLE_DIFFUSION, torch_dtype=torch.float16).to("cuda")


def run_safety_checker(pil_images: Sequence[object]) -> list[bool]:
    """Return whether Stable Diffusion's checker flags each image."""
    torch, numpy = import_module("torch"), import_module("numpy")
    extractor, checker = load_safety_checker()
    seen = extractor(pil_images, return_tensors="pt").to("cuda")  # type: ignore[operator]  # of transformers
    _, flags = checker(  # type: ignore[operator]  # of diffusers
        images=[numpy.array(image) for image in pil_images], clip_input=seen.pixel_values.to(torch.float16)
    )
    return list(flags)


def run_safety_checker_v2(pil_images: Sequence[object], nsfw_threshold: float = 0.5) -> list[bool]:
    """Return whether Falconsai's classifier scores each image above the threshold."""
    pictures = [cast("PillowImage", image).convert("RGB") for image in pil_images]
    return [check_nsfw_content(picture) > nsfw_threshold for picture in pictures]


class Checked(TypedDict):
    """Images, and whether each was flagged and blackened."""

    images: list[PillowImage]
    has_nsfw_concepts: list[bool]


def postprocess_images(
    pil_images: Sequence[object], enable_safety_checker: bool = True, safety_checker_version: int = 2
) -> Checked:
    """Return `images`, each flagged one blackened, and the flags as `has_nsfw_concepts`.

    Args:
        pil_images: Pillow images.
        enable_safety_checker: False flags none, and loads nothing.
        safety_checker_version: 2 for Falconsai's classifier, 1 for Stable Diffusion's checker.
    """
    check = run_safety_checker_v2 if safety_checker_version == 2 else run_safety_checker
    flags = check(pil_images) if enable_safety_checker else [False] * len(pil_images)
    images = filter_by(flags, cast("Sequence[Sized]", pil_images))
    return {"images": cast("list[PillowImage]", images), "has_nsfw_concepts": list(flags)}
