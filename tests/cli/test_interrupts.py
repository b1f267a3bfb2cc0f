"""Ctrl-C while a command imports: exit code 130, without output."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from fal_grpc.v1.runner_pb2 import ListRunnersResponse

# Runs `fal` and sends SIGINT when it imports its Nth module, counted from the start of the program.
INTERRUPTED = """
import os, signal, sys

class Interrupter:
    def __init__(self, at):
        self.left = at

    def find_spec(self, name, path=None, target=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return None

from fal_cli.__main__ import main
interrupter = Interrupter(int(sys.argv.pop(1)))
sys.meta_path.insert(0, interrupter)
code = main()
"""
IGNORING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""
SEARCHING = """
import os, signal, threading
from fal_cli.interrupts import interrupts
from fal_cli.presentation.progress import LiveLine

interrupts.arm()
with LiveLine("Searching the log of hello"):
    print("drawn", flush=True)
    threading.Event().wait()
"""
COUNTED = INTERRUPTED.replace("code = main()", "os._exit = lambda code: print(-interrupter.left); main()")


@pytest.mark.parametrize("arguments", [["runners", "list"], ["--help"], ["apps", "logs", "hello", "-f"]])
def test_ctrl_c_at_any_import_is_quiet_and_code_130(controller, arguments):
    controller.answers["ListRunners"] = ListRunnersResponse()
    counted = subprocess.run(
        [sys.executable, "-c", COUNTED, "0", *arguments], capture_output=True, text=True, check=False
    )
    imports = int(counted.stdout.splitlines()[-1])
    assert imports > 10, counted.stderr
    for at in range(1, imports, max(1, imports // 12)):
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, str(at), *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", ""), at


def test_an_ignored_interrupt_stays_ignored(controller):
    controller.answers["ListRunners"] = ListRunnersResponse()
    command = [sys.executable, "-c", INTERRUPTED, "5", "runners", "list", "--json"]
    done = subprocess.run([sys.executable, "-c", IGNORING, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, '{"runners": []}\n')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_erases_the_live_line(number):
    own, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SEARCHING], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"Searching" not in shown:
        shown += os.read(own, 4096)
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert process.communicate()[0] == b"drawn\n"
    try:
        while part := os.read(own, 4096):
            shown += part
    except OSError:  # the terminal is closed, and everything read
        os.close(own)
    # The text of the line after it was last cleared.
    assert re.split(rb"\r\x1b\[K", shown)[-1] == b""


@pytest.mark.parametrize("arguments", [["runners", "logs"], ["nonsense"], ["runners", "list", "--since", "never"]])
def test_messages_that_nobody_reads_end_a_command_as_output_does(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "fal_cli", *arguments], stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 141
