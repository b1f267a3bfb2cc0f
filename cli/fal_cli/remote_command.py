"""Runs a command in a runner as if it ran here: this process's input, output, window size and exit code are its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from fal_cli.client import open_client
from fal_cli.exits import CommandError, ExitCode
from fal_cli.terminal import InputPump, raw_mode, terminal_size

_STDERR = 2


def run(args: argparse.Namespace, command: Sequence[str], *, tty: bool, send_input: bool) -> int:
    """Run a command in the runner `args.id`, and return its exit code.

    Args:
        args: the parsed command line.
        command: the command and its arguments; empty for a login shell.
        tty: whether it gets a terminal, which is this one.
        send_input: whether it gets what comes on standard input; otherwise it reads end-of-file.

    Raises:
        CommandError: the link broke, with a code of its own, since the command may have ended in any way or go on.
    """
    from fal_grpc.errors import ExecLinkError, UnavailableError

    descriptor = sys.stdin.fileno() if send_input else None
    try:
        with open_client(args) as client, ExitStack() as stack:
            session = client.runners.exec_stream(args.id, command, tty=tty, interactive=True)
            if tty:
                session.resize(*terminal_size(sys.stdin.fileno()))
                stack.enter_context(raw_mode(sys.stdin.fileno()))
            pump = InputPump(
                descriptor, send=session.send, end=session.close_input, resize=session.resize if tty else None
            )
            stack.enter_context(pump.running())
            # Closed first: the pump may be waiting in `send` for a runner that does not read.
            stack.enter_context(session)
            for output in session:
                _write(sys.stderr.buffer if output.stream == _STDERR else sys.stdout.buffer, output.data)
            return session.wait()
    except (ExecLinkError, UnavailableError) as error:
        raise CommandError(str(error), ExitCode.LINK_BROKEN) from None


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()
