"""`fal api --realtime`: lines of JSON on standard input are messages to an app, its answers are lines of JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fal_cli.commands.api.http_calls import ApiCalls
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.presentation.output import complain, write_line

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from fal.settings import Settings
    from fal_cli.commands.api.hosts import Hosts

# Once the input has ended and every message had an answer: how long another answer is waited for.
_QUIET_SECONDS = 1.0


def converse(settings: Settings, hosts: Hosts, path: str) -> int:
    """Hold the session until the app ends it, or the input has ended and is answered; the exit code.

    Raises:
        CommandError: it could not begin, the app reported an error, or the link broke.
    """
    try:
        import msgpack  # type: ignore[import-untyped]  # it has none
        from websockets.exceptions import ConnectionClosed, WebSocketException
        from websockets.sync.client import connect
    except ModuleNotFoundError as error:
        raise CommandError(
            f"--realtime needs the app extra ({error.name} is missing): pip install 'fal-grpc[app]'"
        ) from None
    url = f"{hosts.realtime}/{path}" + ("" if path.endswith("/realtime") else "/realtime")
    calls = ApiCalls(settings)
    headers = {name: value for name, value in calls.headers.items() if name != "User-Agent"}
    try:
        socket = connect(
            url,
            additional_headers=headers,
            user_agent_header=calls.headers["User-Agent"],
            ssl=calls.context() if url.startswith("wss:") else None,
            max_size=None,
        )
    except (OSError, WebSocketException) as error:
        raise CommandError(f"no session with {url} could begin: {error}") from None
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
            elif not _said(message, ended=sender.ended.is_set()):
                break
    if sender.wrong:
        complain(sender.wrong)
        return ExitCode.USAGE
    return ExitCode.OK


def _said(message: str, *, ended: bool) -> bool:
    """A text message, which is the platform's: whether the session goes on."""
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
    """Sends the lines of standard input, and ends with the process.

    Attributes:
        sent: how many messages went out.
        ended: set at the input's end.
        wrong: why the input could not be read on; empty where it could.
    """

    def __init__(self, socket: ClientConnection, pack: Callable[[object], bytes | None]) -> None:
        super().__init__(daemon=True)
        self._socket = socket
        self._pack = pack
        self.sent = 0
        self.ended = threading.Event()
        self.wrong = ""

    def run(self) -> None:
        """Read to the end, or to the session's."""
        from websockets.exceptions import ConnectionClosed

        try:
            for number, line in enumerate(sys.stdin, 1):
                if not line.strip():
                    continue
                try:
                    message = json.loads(line)
                except ValueError as error:
                    self.wrong = f"line {number} of the input is no JSON: {error}"
                    self._socket.close()
                    return
                packed = self._pack(message)
                assert packed is not None  # it is None only where the packer was told to keep it
                self.sent += 1
                self._socket.send(packed)
        except ConnectionClosed:
            return
        finally:
            self.ended.set()
