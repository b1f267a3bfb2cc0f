"""Runs functions in runners: values, generators of them, and errors."""

from functools import partial

import fal

say = partial(print, ">")  # the test compares these lines alone


@fal.function(machine_type="XS", requirements=["humanize==4.11.0"])
def counted(number: int) -> str:
    import humanize

    return humanize.intcomma(number)


class Unusual(Exception):
    pass


@fal.function(machine_type="XS", requirements=["humanize==4.11.0"])
def raises(kind: str) -> None:
    if kind == "own":
        raise Unusual("of its own")
    raise ValueError(f"not {kind}")


if __name__ == "__main__":
    say(counted(1234567))
    say(counted(number=89))
    for kind in ("this", "own"):
        try:
            raises(kind)
        except Exception as error:
            say("not this" in str(error) or "of its own" in str(error))
    other = counted.on(machine_type="S")
    say(other(1000))
