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


def main() -> int:
    """Run `fal` with the arguments of the process."""
    from fal_cli.interrupts import interrupts

    interrupts.arm(instead_of=_end_early)
    from fal_cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
