"""The two servers of the HTTP hop, each in a process of its own: an app under uvicorn, and the gateway before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass

import uvicorn
import uvloop

from fal_server.core.accounts import Principal, Scope
from fal_server.core.routing import Outcome
from fal_server.http.bridge import Bridge
from fal_server.http.door import FrontDoor
from fal_server.http.gateway import Gateway
from fal_server.http.site import ControllerSite


async def app(scope, receive, send) -> None:  # noqa: ANN001 - ASGI
    """Answer 200 with a small JSON body, after reading the request's."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = b'{"answer": 42}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class App:
    """A private app."""

    name: str = "bench"
    public: bool = False
    request_timeout: int = 3600
    request_start_timeout: int | None = None


@dataclass(frozen=True)
class Place:
    """The one runner."""

    runner_id: str
    host: str
    port: int


class Dispatcher:
    """Routes by name and counts, as the real one does."""

    def __init__(self, port: int) -> None:
        self.apps = {("me", "bench"): App()}
        self.places = {"bench": Place("runner", "127.0.0.1", port)}
        self.in_flight: dict[str, int] = {"runner": 0}

    def find(self, owner: str, app: str) -> App | None:
        return self.apps.get((owner, app))

    def try_acquire(self, app_name: str, *, request_id: str, caller: str | None, hint: str | None) -> Place | None:
        place = self.places.get(app_name)
        if place is not None:
            self.in_flight[place.runner_id] += 1
        return place

    async def acquire(
        self, app_name: str, *, request_id: str, caller: str | None, hint: str | None, start_timeout: float | None
    ) -> Place:
        self.in_flight["runner"] += 1
        return self.places[app_name]

    def answered(self, lease: object, hints: str | None, *, health_check: bool) -> None:
        """Nothing is kept."""

    def release(self, lease: object, outcome: Outcome) -> None:
        assert isinstance(lease, Place)
        self.in_flight[lease.runner_id] -= 1


class Access:
    """One key, cached."""

    def __init__(self) -> None:
        self.keys = {
            ("bench", "secret"): Principal(
                key_id="bench", scope=Scope.API, permissions=frozenset({"serverless:apps:run"})
            )
        }

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        return self.keys[key_id, secret]

    def cached(self, key_id: str, secret: str) -> Principal | None:
        return self.keys.get((key_id, secret))

    def may_call_apps(self, principal: Principal) -> bool:
        return "serverless:apps:run" in principal.permissions


async def serve_app() -> None:
    """Print the port, then serve until stdin is closed."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await _end_of_input()
    server.should_exit = True
    await serving


async def serve_gateway(port: int) -> None:
    """As `serve_app`, the gateway before that port."""
    gateway = Gateway(Dispatcher(port), Access())
    bridge = Bridge(app)
    door = FrontDoor(ControllerSite(gateway, bridge), "127.0.0.1:1")
    print(await door.start("127.0.0.1", 0), flush=True)
    await _end_of_input()
    await door.close(1)
    await gateway.close()
    await bridge.close()


async def _end_of_input() -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def read() -> None:
        if not os.read(0, 64) and not ended.done():
            ended.set_result(None)

    loop.add_reader(0, read)
    await ended
    loop.remove_reader(0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve_app() if sys.argv[1] == "app" else serve_gateway(int(sys.argv[2])))
