"""A served function."""

import fal


@fal.function(machine_type="XS", requirements=["pillow"], keep_alive=60, serve=True)
def shout(text: str = "hello") -> dict:
    return {"text": text.upper()}
