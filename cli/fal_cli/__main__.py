"""The program `fal`, also as `python -m fal_cli`."""

# Until the handlers are set, a Ctrl-C prints a traceback. So nothing is imported from a file before: `_signal` is built
# in, unlike `signal` and `__future__`.
import _signal as early  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
import os
import sys


def _end_early(number: int, _frame: object) -> None:
    os._exit(128 + number)


for _number in (early.SIGINT, early.SIGTERM, getattr(early, "SIGHUP", early.SIGTERM)):
    # A signal that is ignored stays ignored, as under nohup.
    if early.getsignal(_number) in (early.SIG_DFL, early.default_int_handler):
        early.signal(_number, _end_early)


def _replace_closed_streams() -> None:
    """Open /dev/null as each standard stream that is closed, as with `>&-`.

    Otherwise the first file or socket would be that stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def main() -> int:
    """Run `fal` with the arguments of the process."""
    _replace_closed_streams()
    from fal_cli.interrupts import interrupts

    interrupts.arm(instead_of=_end_early)
    from fal_cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
