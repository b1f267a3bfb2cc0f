"""`fal runners profile`: shows the activity of a runner's Python. It uses py-spy on the runner's machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import RUNNERS
from fal_cli.options import add_client_options, add_output_options, int_type, path_type
from fal_cli.parser import Commands, add_command
from fal_cli.presentation.output import print_note, write_document
from fal_cli.presentation.printable import visible

if TYPE_CHECKING:
    from fal_cli.terminal.remote_command import Collected

_HELP = "Show what a runner's Python does: its stacks now, or a flame graph."
_EPILOG = """\
Without --flame it prints the stack of each thread: where a runner is that hangs. With --flame it samples the stacks 100
times a second and writes a picture of where the time goes, for a browser; Ctrl-C ends the sampling early. Each sample
pauses the app for about a millisecond. The runner's machine needs py-spy: pip install 'fal-grpc[profile]'.

Examples:
  fal runners profile 83dd5028
  fal runners profile 83dd5028 --flame shop.svg --seconds 30"""
_SECONDS = 10
_MOST_SECONDS = 3600
# Time beyond the sampling, to start py-spy and to draw.
_LEEWAY_SECONDS = 60.0
_NO_PROCESS, _NO_PROFILER, _NO_SAMPLE_YET = 90, 91, 92
# py-spy's message if it ends without a sample.
_NOTHING_SAMPLED = "No stack counts found"
# The shim tells commands the worker's process and the shim's own py-spy.
_FIND = f"""
export RUST_BACKTRACE=0
[ -n "$FAL_WORKER_PID" ] || exit {_NO_PROCESS}
[ -x "$FAL_PY_SPY" ] || exit {_NO_PROFILER}
"""
# py-spy's own --subprocesses stops at the first process that is not Python.
_DUMP = f"""{_FIND}
"$FAL_PY_SPY" dump --pid "$FAL_WORKER_PID" $1 || exit
[ -n "$2" ] || exit 0
form=$1
below() {{
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        "$FAL_PY_SPY" dump --pid "$child" $form 2>/dev/null
        below "$child"
    done
}}
below "$FAL_WORKER_PID"
exit 0
"""
# Ctrl-C ends the sampling, and the samples so far are drawn. py-spy announces that it samples before it handles SIGINT,
# which would then end it without output. So it runs in the background, where a shell ignores SIGINT for it, and gets
# its own SIGINT once it can handle it. The traps also remove the file when the command is hung up.
FLAME = f"""{_FIND}
file=$(mktemp) || exit
trap 'rm -f "$file"' EXIT
asked= profiler=
takes_interrupts() {{ grep -q '^SigCgt:.*[2367abef]$' "/proc/$profiler/status" 2>/dev/null; }}
lives() {{ grep -q '^State:.[^XZ]' "/proc/$profiler/status" 2>/dev/null; }}
interrupt() {{
    asked=yes
    [ -n "$profiler" ] || return
    while lives; do
        if takes_interrupts; then kill -INT "$profiler"; return; fi
        sleep 0.02
    done
}}
trap interrupt INT
trap 'kill "$profiler" 2>/dev/null; exit 129' HUP TERM
"$FAL_PY_SPY" record --pid "$FAL_WORKER_PID" --output "$file" "$@" >&2 &
profiler=$!
[ -z "$asked" ] || interrupt
wait "$profiler"
code=$?
# A signal ends a wait before the process has ended.
while lives; do
    wait "$profiler"
    code=$?
done
# The picture says more than the code: that of a wait which a signal ended is not py-spy's.
if [ -s "$file" ]; then
    cat "$file"
    exit
fi
[ -z "$asked" ] || exit {_NO_SAMPLE_YET}
exit "$code"
"""


def add_command_to(commands: Commands) -> None:
    """Declare `profile`."""
    parser = add_command(commands, "profile", _HELP, _profile, epilog=_EPILOG, published=False)
    add_client_options(parser)
    complete_ids(parser.add_argument("id", help="Runner ID."), RUNNERS)
    parser.add_argument("--flame", type=path_type, metavar="FILE.svg", help="Write a flame graph to this file.")
    parser.add_argument(
        "--seconds", type=_seconds, metavar="N", help=f"How long to sample for --flame (defaults to {_SECONDS})."
    )
    parser.add_argument("--idle", action="store_true", help="Have --flame count threads that wait, too.")
    parser.add_argument(
        "--subprocesses", action="store_true", help="Look at the Python processes that the app started, too."
    )
    add_output_options(parser)


def _seconds(text: str) -> int:
    seconds = int_type(text)
    if not 1 <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 1 to {_MOST_SECONDS}")
    return seconds


def _profile(args: argparse.Namespace) -> None:
    if args.flame is not None:
        _draw(args, args.flame)
        return
    for option in ("seconds", "idle"):
        if getattr(args, option):
            raise CommandError(f"--{option} is for --flame FILE.svg", ExitCode.USAGE)
    _dump(args)


def _dump(args: argparse.Namespace) -> None:
    form = "" if args.output == "pretty" else "--json"
    found = _run(args, _DUMP, [form, "yes" if args.subprocesses else ""], timeout=_LEEWAY_SECONDS)
    text = found.stdout.decode(errors="replace")
    if args.output == "pretty":
        sys.stdout.write(visible(text))
    else:
        write_document(args.output, {"threads": _threads(text)})


def _threads(text: str) -> list[object]:
    """Return the threads of all processes, in one list for each process."""
    import json

    decoder = json.JSONDecoder()
    threads: list[object] = []
    while text := text.lstrip():
        found, end = decoder.raw_decode(text)
        threads += found
        text = text[end:]
    return threads


def _draw(args: argparse.Namespace, file: Path) -> None:
    seconds = args.seconds or _SECONDS
    if args.output != "pretty":
        raise CommandError("--output is for stacks; --flame writes SVG", ExitCode.USAGE)
    # Check this before the sampling, which may take long.
    if file.is_dir() or not file.absolute().parent.is_dir() or not os.access(file.absolute().parent, os.W_OK):
        raise CommandError(f"cannot write {file}: name a file in a folder that exists")
    more = [*(["--idle"] if args.idle else []), *(["--subprocesses"] if args.subprocesses else [])]
    print_note(f"Sampling for {seconds} s; Ctrl-C ends it early and draws what there is.")
    found = _run(args, FLAME, ["--duration", str(seconds), *more], timeout=seconds + _LEEWAY_SECONDS)
    file.write_bytes(found.stdout)
    print_note(f"Wrote {file}. Open it in a browser; a click on a frame shows what is above it.")


def _run(args: argparse.Namespace, script: str, words: Sequence[str], *, timeout: float) -> Collected:
    from fal_cli.terminal.remote_command import collect

    done = collect(args, ["sh", "-c", script, "profile", *words], timeout=timeout)
    if done.exit_code == _NO_PROCESS:
        raise CommandError(
            f"runner {args.id} does not say which process its app is: it is in a container, "
            "or an older version or another controller started it"
        )
    if done.exit_code == _NO_PROFILER:
        raise CommandError(
            "py-spy is not installed on the runner's machine: install the extra `profile` where its controller is "
            "installed, with pip install 'fal-grpc[profile]'; the runner need not start again"
        )
    if done.exit_code == _NO_SAMPLE_YET:
        raise CommandError("interrupted before anything was sampled; nothing was written", ExitCode.INTERRUPTED)
    if done.exit_code:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else "it said nothing")
        if _NOTHING_SAMPLED in said:
            raise CommandError("nothing was sampled: the app only waited; --idle counts threads that wait, too")
        if "permission denied" in said.lower():
            raise CommandError(
                "the kernel of the runner's machine lets nobody but root look into another process "
                "(kernel.yama.ptrace_scope is 2 or more), or the app runs as another user: allow it there with "
                "`sysctl kernel.yama.ptrace_scope=1`, or run the controller as root"
            )
        raise CommandError(f"py-spy failed: {said.removeprefix('Error: ')}")
    return done
