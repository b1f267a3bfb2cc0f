"""A proxy that cuts connections after a number of bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["to the controller", "to the client"]


@dataclass
class Cutter:
    """A proxy that cuts every connection after some bytes in one direction.

    Attributes:
        at: the number of bytes of a direction; None forwards everything.
        counted: the bytes of each direction, over all connections.
        cuts: how many connections to cut; later ones are not cut.
    """

    target: int
    at: tuple[Direction, int] | None = None
    most_cuts: int = 1
    counted: dict[Direction, int] = field(default_factory=lambda: {"to the controller": 0, "to the client": 0})
    cuts: int = 0
    port: int = 0

    def serve(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as controller:
            back = threading.Thread(target=self._pass, args=("to the client", controller, client))
            back.start()
            self._pass("to the controller", client, controller)
            back.join()

    def _pass(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                before = self.counted[direction]
                self.counted[direction] += len(piece)
                if self.at is not None and self.at[0] == direction and self.cuts < self.most_cuts:
                    left = self.at[1] - before
                    if left < len(piece):
                        self.cuts += 1
                        sink.sendall(piece[: max(left, 0)])
                        break
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting(cutter: Cutter) -> Generator[Cutter]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        cutter.port = listening.getsockname()[1]
        threading.Thread(target=cutter.serve, args=(listening,), daemon=True).start()
        yield cutter
        listening.shutdown(socket.SHUT_RDWR)
