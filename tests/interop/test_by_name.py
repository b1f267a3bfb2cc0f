"""fal_client with no host variable at all: a proxy leads the names of the cloud to this controller, by TLS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.controller import Controller, running
from tests.support.official import Official

# The names that the published client has built in: what it would use with none of these variables set.
NAMES = {"FAL_RUN_HOST": "fal.run", "FAL_QUEUE_RUN_HOST": "queue.fal.run", "FAL_REST_HOST": "rest.fal.ai"}


class Proxy:
    """A CONNECT proxy that leads every host to one port.

    Attributes:
        asked: the hosts that it was asked for.
    """

    def __init__(self, target: int) -> None:
        self.asked: set[str] = set()
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._listening.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            await self._lead(reader, writer)
            tasks.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._done.wait()
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.add(head.split()[1].decode().partition(":")[0])
        far, near = await asyncio.open_connection("127.0.0.1", self._target)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(self._copy(reader, near), self._copy(far, writer))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass  # one of the two has left: so does the other
        finally:
            target.close()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """A controller that speaks TLS alone."""
    with running(tmp_path_factory.mktemp("named"), "--tls") as controller:
        yield controller


@pytest.fixture
def proxy(secure: Controller) -> Generator[Proxy]:
    proxy = Proxy(secure.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("named-home")


@covers("run", "submit, status, result", "cancel", "stream", "realtime")
def test_by_the_names_that_are_built_in(secure: Controller, python: Path, home: Path, proxy: Proxy) -> None:
    authority = str(secure.state_dir / "tls" / "ca.pem")
    extra = {"ISOLATE_TEST_MODE": "0", "SSL_CERT_FILE": authority, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": authority}
    deployer = Official(python=python, home=home, host=f"localhost:{secure.port}", key=secure.key, extra=extra)
    deployer.fal("deploy", SAMPLES / "tiny.py", "--app-name", "tiny")

    named = {**extra, **NAMES, "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
    client = Official(python=python, home=home, host="api.alpha.fal.ai", key=secure.key, extra=named)
    script = """
import json
import fal_client
APP = "local/tiny"
ran = fal_client.run(APP, arguments={"text": "a "})
handle = fal_client.submit(APP, arguments={"text": "b "})
got = handle.get()
again = fal_client.result(APP, handle.request_id)
kind = type(fal_client.status(APP, handle.request_id, with_logs=True)).__name__
slow = fal_client.submit(APP, arguments={}, path="/slow")
slow.cancel()
streamed = [event["number"] for event in fal_client.stream(APP, arguments={"text": "s"})]
with fal_client.realtime(APP) as connection:
    connection.send({"text": "word"})
    spoken = connection.recv()["text"]
url = fal_client.upload(b"content", "text/plain")
print(json.dumps([url.startswith("https://"), ran["text"], got == again, kind, streamed, spoken]))
"""
    assert client.script(script) == [True, "a 1st", True, "Completed", [0, 1, 2], "WORD"]
    assert {"fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media"} <= proxy.asked
