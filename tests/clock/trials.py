"""Trials of all durations on a real controller. They report each start and end."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from fal.api import RunnerState, SyncServerlessClient
from tests.support.controller import Answer, Controller
from tests.support.waiting import until

# Far below an hour, which a backward step would add; a loaded machine needs some of it.
LIMIT_SECONDS = 240.0
ARRANGED = 0.0
_SECONDS = 8
_SOURCE = """
import threading
import time
from pathlib import Path

import fal
from fastapi import Response


def note() -> None:
    with Path({notes!r}).open("a") as notes:
        print(time.monotonic(), file=notes, flush=True)


class Timed(fal.App, max_concurrency=1, **{options!r}):
    machine_type = "XS"

    def setup(self) -> None:
        {setup}

    def teardown(self) -> None:
        {teardown}

    @fal.endpoint("/")
    def run(self) -> str:
        return "done"

    @fal.endpoint("/hold")
    def hold(self) -> None:
        note()
        threading.Event().wait(1000)

    @fal.endpoint("/fail")
    def fail(self) -> Response:
        note()
        return Response(status_code=504)

    @fal.endpoint("/check"{check})
    def check(self) -> str:
        note()
        return "well"
"""
_DEPLOYING = threading.Lock()  # loading an app's file replaces and restores this process's modules
_BLOCK = "note(); threading.Event().wait(1000)"
T = TypeVar("T")
Trial: TypeAlias = "Generator[float, None, None]"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A duration that is tried.

    Attributes:
        name: as users write it.
        seconds: its value.
        trial: yields ARRANGED, then the start and the end of the duration, in seconds of the monotonic clock.
        lasts: whether it survives a restart of the controller.
        starts: whether a runner starts, or processes a request, before it begins.
    """

    name: str
    seconds: float
    trial: Callable[[Site], Trial]
    lasts: bool = True
    starts: bool = False


class GaveUpError(Exception):
    """A trial ends because another one has failed."""


class Site:
    """A controller, and apps that are made for trials."""

    def __init__(self, folder: Path, controller: Controller) -> None:
        self._folder = folder
        self._given_up = False
        self.controller = controller
        self.sdk = SyncServerlessClient(controller.host, controller.key)

    def app(
        self,
        *,
        auth: Literal["public", "private"] = "public",
        setup: str = "pass",
        teardown: str = "pass",
        check: str = "",
        **options: int,
    ) -> str:
        """Deploy an app for one trial; return its name."""
        name = f"timed-{uuid.uuid4().hex[:8]}"
        path = self._folder / f"{name}.py"
        options = {"keep_alive": 900, **options}
        path.write_text(
            _SOURCE.format(notes=str(self._notes(name)), options=options, setup=setup, teardown=teardown, check=check)
        )
        with _DEPLOYING:
            self.sdk.deploy(str(path), app_name=name, auth=auth)
        return name

    def call(self, path: str, body: object = None, **options: Any) -> Answer:
        return self.controller.call(path, body, timeout=LIMIT_SECONDS, **options)

    def submit(self, app: str, path: str = "/", *, query: str = "", **headers: str) -> str:
        """Queue a request; return its id."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.call(f"/queue/local/{app}{path}{query}", {}, headers=named)
        assert answer.status == 200, answer.body
        return str(answer.json()["request_id"])

    def hold(self, app: str) -> None:
        """Take the only slot of an app's only runner."""

        def work() -> None:
            with suppress(OSError, http.client.HTTPException):  # the controller may die meanwhile
                self.call(f"/local/{app}/hold", {})

        threading.Thread(target=work, daemon=True).start()
        self.noted(app, 1)

    def states(self, app: str) -> set[RunnerState]:
        """Return the states of an app's runners."""
        return {runner.state for runner in self.sdk.apps.runners(app)}

    def within(self, look: Callable[[], T | None], what: str) -> T:
        """Wait until `look` returns something true; return that."""

        def look_unless_given_up() -> T | None:
            if self._given_up:
                raise GaveUpError(f"another trial failed; not waited for: {what}")
            return look()

        return until(look_unless_given_up, what, LIMIT_SECONDS)

    def give_up(self) -> None:
        """End all trials soon: waits raise, and calls are cancelled."""
        self._given_up = True
        self.controller.process.kill()

    def noted(self, app: str, count: int) -> Sequence[float]:
        """Wait until an app has recorded this many times; return them."""
        return self.within(
            lambda: found if len(found := self._noted(app)) >= count else None, f"{app} notes {count} times"
        )

    def _noted(self, app: str) -> Sequence[float]:
        path = self._notes(app)
        return [float(line) for line in path.read_text().split()] if path.exists() else []

    def _notes(self, app: str) -> Path:
        return self._folder / f"{app}.notes"


def _keep_alive(site: Site) -> Trial:
    app = site.app(keep_alive=_SECONDS)
    site.call(f"/local/{app}/", {})
    yield ARRANGED
    began = time.monotonic()
    site.call(f"/local/{app}/", {})
    yield began
    site.within(lambda: not site.states(app), "the idle runner ends")
    yield time.monotonic()


def _startup_timeout(site: Site) -> Trial:
    app = site.app(startup_timeout=_SECONDS, setup=_BLOCK)
    yield ARRANGED
    began = time.monotonic()
    site.submit(app)
    site.noted(app, 1)
    yield began
    site.within(lambda: site.states(app) == {RunnerState.FAILURE_DELAY}, "the start fails")
    yield time.monotonic()


def _failure_delay(site: Site) -> Trial:
    app = site.app(setup="note(); raise RuntimeError('planted')")
    yield ARRANGED
    site.submit(app)
    yield site.noted(app, 1)[0]
    yield site.noted(app, 2)[1]


def _request_timeout(site: Site) -> Trial:
    app = site.app(request_timeout=_SECONDS)
    yield ARRANGED
    yield time.monotonic()
    answer = site.call(f"/local/{app}/hold", {})
    assert answer.status == 504, answer.body
    yield time.monotonic()


def _start_timeout(site: Site) -> Trial:
    app = site.app()
    site.hold(app)
    yield ARRANGED
    yield time.monotonic()
    answer = site.call(f"/local/{app}/", {}, headers={"X-Fal-Request-Timeout": str(_SECONDS)})
    assert answer.status == 504, answer.body
    yield time.monotonic()


def _queue_expiry(site: Site) -> Trial:
    app = site.app()
    site.hold(app)
    yield ARRANGED
    began = time.monotonic()
    request = site.submit(app, x_fal_request_timeout=str(_SECONDS))
    yield began
    place = f"/queue/local/{app}/requests/{request}"
    site.within(lambda: site.call(f"{place}/status").status == 200, "the request expires")
    yield time.monotonic()
    assert site.call(place).status == 504


def _scaling_delay(site: Site) -> Trial:
    app = site.app(scaling_delay=_SECONDS)
    yield ARRANGED
    began = time.monotonic()
    site.submit(app)
    yield began
    site.within(lambda: site.states(app), "a runner starts")
    yield time.monotonic()


def _grace(site: Site) -> Trial:
    app = site.app(teardown=_BLOCK, termination_grace_period_seconds=_SECONDS)
    site.call(f"/local/{app}/", {})
    (runner,) = site.sdk.apps.runners(app)
    yield ARRANGED
    site.sdk.runners.stop(runner.runner_id)
    yield site.noted(app, 1)[0]
    site.within(lambda: not site.states(app), "the runner ends")
    yield time.monotonic()


def _exec_timeout(site: Site) -> Trial:
    app = site.app()
    site.call(f"/local/{app}/", {})
    (runner,) = site.sdk.apps.runners(app)
    yield ARRANGED
    began = time.monotonic()
    site.sdk.runners.exec(runner.runner_id, ["sleep", "1000"], timeout=_SECONDS, detach=True)
    yield began
    site.within(lambda: all(found.ended_at for found in site.sdk.runners.execs(runner.runner_id)), "the command ends")
    yield time.monotonic()


def _webhook_retry(site: Site) -> Trial:
    app, tries = site.app(), list[float]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            tries.append(time.monotonic())
            self.send_response(200 if len(tries) > 1 else 500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing; the trial checks."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        site.call(f"/local/{app}/", {})
        yield ARRANGED
        hook = quote(f"http://127.0.0.1:{server.server_port}/", safe="")
        request = site.submit(app, query=f"?fal_webhook={hook}")
        site.within(lambda: site.sdk.queue.get(app, request).deliveries, "a try of the webhook is stored")
        yield tries[0]
        site.within(lambda: len(tries) > 1, "the webhook is called again")
        yield tries[1]
    finally:
        server.shutdown()
        server.server_close()


def _retry_pause(site: Site) -> Trial:
    app = site.app()
    request = site.submit(app, "/fail")
    site.noted(app, 3)
    yield ARRANGED
    began = site.noted(app, 4)[3]
    status = f"/queue/local/{app}/requests/{request}/status"
    site.within(lambda: site.call(status).json()["status"] == "IN_QUEUE", "the request rests")
    yield began
    yield site.noted(app, 5)[4]


def _health_interval(site: Site) -> Trial:
    app = site.app(check=', health_check=fal.HealthCheck(method="POST")', min_concurrency=1)
    yield ARRANGED
    yield site.noted(app, 1)[0]
    yield site.noted(app, 2)[1]


def _token_life(site: Site) -> Trial:
    app = site.app(auth="private")
    yield ARRANGED
    began = time.monotonic()
    asked = {"allowed_apps": [app], "token_expiration": _SECONDS}
    token = str(site.call("/tokens/", asked, key=site.controller.key).json())
    private = f"/local/{app}/nothing?fal_jwt_token={token}"
    assert _upgrade(site, private) != 401
    yield began
    site.within(lambda: _upgrade(site, private) == 401, "the token expires")
    yield time.monotonic()


def _file_life(site: Site) -> Trial:
    life = {"X-Fal-Object-Lifecycle": json.dumps({"expiration_duration_seconds": _SECONDS})}
    about = {"file_name": "a.txt", "content_type": "text/plain"}
    yield ARRANGED
    began = time.monotonic()
    started = site.call("/storage/upload/initiate", about, key=site.controller.key, headers=life).json()
    upload, file = (str(started[name]).partition("/storage/")[2] for name in ("upload_url", "file_url"))
    assert site.call(f"/storage/{upload}", "text", method="PUT").status == 200
    assert site.call(f"/storage/{file}").status == 200
    yield began
    site.within(lambda: site.call(f"/storage/{file}").status == 404, "the file expires")
    yield time.monotonic()


def _upgrade(site: Site, path: str) -> int:
    """Ask for a WebSocket; return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", site.controller.port, timeout=LIMIT_SECONDS)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


SETTINGS = (
    Setting(name="`keep_alive`", seconds=_SECONDS, trial=_keep_alive, starts=True),
    Setting(name="`startup_timeout`", seconds=_SECONDS, trial=_startup_timeout, starts=True),
    Setting(name="the pause after a failed start", seconds=30, trial=_failure_delay, starts=True),
    Setting(name="`scaling_delay`", seconds=_SECONDS, trial=_scaling_delay),
    Setting(name="`request_timeout`", seconds=_SECONDS, trial=_request_timeout, lasts=False),
    Setting(name="`X-Fal-Request-Timeout` of a direct call", seconds=_SECONDS, trial=_start_timeout, lasts=False),
    Setting(name="`X-Fal-Request-Timeout` of a queued request", seconds=_SECONDS, trial=_queue_expiry),
    Setting(name="the pause before another attempt", seconds=4, trial=_retry_pause),
    Setting(name="the pause before a webhook is tried again", seconds=14, trial=_webhook_retry, starts=True),
    Setting(name="`termination_grace_period_seconds`", seconds=_SECONDS, trial=_grace),
    Setting(name="`exec --timeout`", seconds=_SECONDS, trial=_exec_timeout),
    Setting(name="from one health check to the next", seconds=15, trial=_health_interval, lasts=False),
    Setting(name="`token_expiration`", seconds=_SECONDS, trial=_token_life),
    Setting(name="`expiration_duration_seconds` of a file", seconds=_SECONDS, trial=_file_life),
)
