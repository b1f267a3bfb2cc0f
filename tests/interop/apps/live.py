"""A realtime model, and an endpoint with a plain WebSocket."""

import fal
from fastapi import WebSocket
from pydantic import BaseModel


class Frame(BaseModel):
    number: int = 0


class Seen(BaseModel):
    doubled: int


class Live(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    @fal.realtime("/realtime", buffering=5)
    def see(self, frame: Frame) -> Seen:
        return Seen(doubled=frame.number * 2)

    @fal.endpoint("/ws", is_websocket=True)
    async def talk(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"heard {await websocket.receive_text()}")
        await websocket.close()

    @fal.endpoint("/")
    def look(self, frame: Frame) -> Seen:
        return Seen(doubled=frame.number * 2)
