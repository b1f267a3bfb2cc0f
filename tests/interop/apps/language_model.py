"""A language model that streams its words as server-sent events."""

import json

import fal
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Input(BaseModel):
    prompt: str


class LanguageModel(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    def setup(self):
        self.next = {"once": "upon", "upon": "a", "a": "time"}

    def words(self, word: str):
        while word in self.next:
            word = self.next[word]
            yield word

    @fal.endpoint("/")
    def generate(self, input: Input) -> dict:
        return {"output": " ".join(self.words(input.prompt))}

    @fal.endpoint("/stream")
    def stream(self, input: Input) -> StreamingResponse:
        events = (f"data: {json.dumps({'output': word})}\n\n" for word in self.words(input.prompt))
        return StreamingResponse(events, media_type="text/event-stream")
