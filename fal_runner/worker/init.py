"""The first process of a container. It starts the worker, forwards signals to it, and reaps orphans.

`init.py RESULT`: the job comes on standard input, which the app must find empty, and RESULT is a pipe for messages.
The kernel ignores a signal to a first process without a handler for it, so an app would outlive its SIGTERM. And only a
first process waits for orphans. The image's interpreter (Python 3.8 or newer) runs it.
"""

from __future__ import annotations

import os
import signal
import sys

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def start(result: str) -> int:
    """Start the worker and return its process id."""
    worker = os.path.join(os.path.dirname(__file__), "worker.py")  # noqa: PTH118, PTH120
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    process = os.fork()
    if process:
        return process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    job = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    messages = os.open(result, os.O_WRONLY)
    os.set_inheritable(job, True)
    os.set_inheritable(messages, True)
    os.execv(sys.executable, [sys.executable, worker, str(job), str(messages)])  # noqa: S606


def main() -> int:
    """Wait for the worker and return its exit code. A signal that ended it gives 128 or above."""
    worker = start(sys.argv[1])

    def pass_on(number: int, _: object) -> None:
        try:
            os.kill(worker, number)
        except ProcessLookupError:
            return

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    while True:
        process, status = os.wait()
        if process == worker:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
