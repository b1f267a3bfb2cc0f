"""An audio model that returns a file, stored by the platform."""

import io
import wave

import fal
from fal.toolkit import Audio
from pydantic import BaseModel


class Input(BaseModel):
    seconds: int = 1


class Output(BaseModel):
    audio: Audio


class AudioModel(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    @fal.endpoint("/")
    async def speak(self, input: Input) -> Output:
        with io.BytesIO() as file:
            with wave.open(file, "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(1)
                sound.setframerate(8000)
                sound.writeframes(bytes(8000 * input.seconds))
            made = await Audio.from_bytes_async(file.getvalue(), "audio/wav", "speech.wav", repository="in_memory")
        return Output(audio=made)
