"""Functions as users of the published package write them. One is served, one is called once, and one raises."""

import fal


@fal.function(machine_type="XS", requirements=[], serve=True, keep_alive=60)
def served(text: str) -> dict:
    return {"text": text.upper()}


@fal.function(machine_type="XS", requirements=["humanize==4.11.0"])
def counted() -> str:
    import humanize

    line = f"counts to {humanize.intcomma(10**6)}"
    print(line)
    return line


@fal.function(machine_type="XS")
def raised() -> None:
    raise ValueError("raised on purpose")
