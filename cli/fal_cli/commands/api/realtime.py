"""`fal api --realtime`: sends lines of JSON to an app as messages. It prints the responses as lines of JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fal.http_messages import tls_context, user_agent
from fal.websocket import WebSocket
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.presentation.output import print_error, write_line

if TYPE_CHECKING:
    from fal.hosts import Hosts
    from fal.settings import Settings

# How long to wait for another response after the input has ended and every message has one.
_QUIET_SECONDS = 1.0


def converse(settings: Settings, hosts: Hosts, path: str) -> int:
    """Run the session, and return the exit code. It ends if the app ends it or all input has a response.

    Raises:
        CommandError: the session could not start, the app reported an error, or the link broke.
    """
    try:
        import msgpack  # type: ignore[import-untyped]  # it has no types
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, WebSocketException
    except ModuleNotFoundError as error:
        raise CommandError(
            f"--realtime needs the app extra ({error.name} is missing): pip install 'fal-grpc[app]'"
        ) from None
    url = f"{hosts.realtime}/{path}" + ("" if path.endswith("/realtime") else "/realtime")
    try:
        opening = connect(
            url,
            additional_headers=settings.credentials.headers(),
            user_agent_header=user_agent(),
            ssl=tls_context(settings.options) if url.startswith("wss:") else None,
            max_size=None,
        )
        socket = WebSocket(opening)
    except (OSError, WebSocketException) as error:
        raise CommandError(f"a session with {url} could not start: {error}") from None
    with socket:
        sender = _Sender(socket, msgpack.Packer(use_bin_type=True).pack)
        sender.start()
        answers = 0
        while True:
            waits = _QUIET_SECONDS if sender.ended.is_set() and answers >= sender.sent else None
            try:
                message = socket.recv(timeout=waits if waits is not None else 0.25)
            except TimeoutError:
                if waits is not None:
                    break
                continue
            except ConnectionClosed as closed:
                if sender.wrong:
                    break
                if sender.ended.is_set() and closed.rcvd is not None and closed.rcvd.code == 1000:
                    break
                raise CommandError(f"the session ended: {closed}", ExitCode.LINK_BROKEN) from None
            if isinstance(message, bytes):
                answers += 1
                write_line(msgpack.unpackb(message, raw=False))
                sys.stdout.flush()
            elif not _handle_text(message, ended=sender.ended.is_set()):
                break
    if sender.wrong:
        print_error(sender.wrong)
        return ExitCode.USAGE
    return ExitCode.OK


def _handle_text(message: str, *, ended: bool) -> bool:
    """Handle a text message, which comes from the platform. Return whether the session continues."""
    try:
        found = json.loads(message)
    except ValueError:
        found = None
    if isinstance(found, Mapping) and found.get("type") == "x-fal-error":
        if ended and found.get("error") == "TIMEOUT":
            return False
        raise CommandError(f"the app ended the session: {found.get('error')}: {found.get('reason')}")
    if not (isinstance(found, Mapping) and found.get("type") == "x-fal-message"):
        write_line(message if found is None else found)
        sys.stdout.flush()
    return True


class _Sender(threading.Thread):
    """Sends the lines of standard input. Its thread ends with the process.

    Attributes:
        sent: how many messages were sent.
        ended: set at the end of the input.
        wrong: the input's error; empty if there is none.
    """

    def __init__(self, socket: WebSocket, pack: Callable[[object], bytes | None]) -> None:
        super().__init__(daemon=True)
        self._socket = socket
        self._pack = pack
        self.sent = 0
        self.ended = threading.Event()
        self.wrong = ""

    def run(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for number, line in enumerate(sys.stdin, 1):
                if not line.strip():
                    continue
                try:
                    message = json.loads(line)
                except ValueError as error:
                    self.wrong = f"line {number} of the input is not JSON: {error}"
                    self._socket.close()
                    return
                packed = self._pack(message)
                assert packed is not None  # it is None only if the packer keeps its buffer
                self.sent += 1
                self._socket.send(packed)
        except ConnectionClosed:
            return
        finally:
            self.ended.set()
