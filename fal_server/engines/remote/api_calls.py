"""Carries the calls of a node's runners to the controller's own socket. A node connects to nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import grpc
import grpc.aio

from fal_grpc.backoff import Backoff
from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.v1 import host_pb2 as pb
from fal_grpc.v1 import host_pb2_grpc
from fal_server.aio.tasks import TaskSet

log = logging.getLogger(__name__)
_RETRIES = Backoff(first_seconds=0.1, longest_seconds=2.0)
_CHUNK_BYTES = 128 * 1024
MOST_CALLS = 256
"""Of one node at once; further ones wait on the node. Each takes two descriptors of the controller."""


class ApiCalls:
    """Takes the connections that runners of a node make, one after another.

    Args:
        stub: calls the node process.
        socket: of the controller, for runners.
        heard: set while the node answers.
    """

    def __init__(self, stub: host_pb2_grpc.HostAsyncStub, socket: Path, heard: asyncio.Event) -> None:
        self._stub = stub
        self._socket = socket
        self._heard = heard
        self._open = TaskSet(log)
        self._room = asyncio.Semaphore(MOST_CALLS)
        self._taking = asyncio.get_running_loop().create_task(self._take(), name="calls of a node's runners")

    async def close(self) -> None:
        """Take no more, and cut off those that are open."""
        self._taking.cancel()
        await asyncio.gather(self._taking, return_exceptions=True)
        await self._open.close()

    async def _take(self) -> None:
        failures = 0
        while True:
            await self._room.acquire()
            await self._heard.wait()
            call = self._stub.Accept()
            try:
                connected = await call.read() is not grpc.aio.EOF
            except grpc.aio.AioRpcError as error:
                raise_if_cancelled()
                log.debug("a node has no calls of runners: %s", error.details())
                connected = False
            if connected:
                failures = 0
                passing = self._open.spawn(self._pass_on(call), name="a call of a node's runner")
                passing.add_done_callback(lambda _: self._room.release())
            else:
                self._room.release()
                failures += 1
                await asyncio.sleep(_RETRIES.pause(failures))

    async def _pass_on(self, call: grpc.aio.StreamStreamCall[pb.AcceptRequest, pb.AcceptResponse]) -> None:
        """Carry bytes until the runner closes or this controller's side breaks."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError as error:
            log.warning("a runner's call could not be taken: %s", error)
            call.cancel()
            return
        answering = asyncio.ensure_future(_answer(reader, call))
        try:
            async for data in _said(call):
                writer.write(data)
                await writer.drain()
        except (grpc.aio.AioRpcError, OSError) as error:
            log.debug("a runner's call broke: %s", error)
        finally:
            answering.cancel()
            call.cancel()
            writer.close()
            await asyncio.gather(answering, return_exceptions=True)
            with suppress(OSError):
                await writer.wait_closed()


async def _said(call: grpc.aio.StreamStreamCall[pb.AcceptRequest, pb.AcceptResponse]) -> AsyncIterator[bytes]:
    while (message := await call.read()) is not grpc.aio.EOF:
        yield cast("pb.AcceptResponse", message).data


async def _answer(
    reader: asyncio.StreamReader, call: grpc.aio.StreamStreamCall[pb.AcceptRequest, pb.AcceptResponse]
) -> None:
    """Carry what the controller says. The node closes the connection once it has all of that."""
    while data := await reader.read(_CHUNK_BYTES):
        await call.write(pb.AcceptRequest(data=data))
    await call.done_writing()
