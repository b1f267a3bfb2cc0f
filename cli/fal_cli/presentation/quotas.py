"""Shows an account's quotas and usage to people."""

from __future__ import annotations

from fal_cli.presentation.output import shown_bytes

QUOTAS_BY_NAME: dict[str, tuple[str, bool]] = {
    "requests_per_second": ("Requests to its apps a second.", False),
    "caller_requests_per_second": ("Of each key; to public apps, of each address.", False),
    "queued_requests": ("Queued requests that are not completed.", False),
    "queued_bytes": ("Bytes of their bodies.", True),
    "runners": ("Runners at once.", False),
    "log_bytes_per_minute": ("Bytes that its runners may log a minute.", True),
    "data_bytes": ("Bytes in /data.", True),
}
"""For each quota by name, which is also its option's name: its help, and whether it counts bytes."""


def shown_amount(name: str, amount: int) -> str:
    """Return an amount of a quota, in bytes or as a number."""
    _, is_size = QUOTAS_BY_NAME.get(name, ("", False))  # a later controller may have others
    return shown_bytes(amount) if is_size else str(amount)


def shown_use(name: str, bound: int, used: int | None) -> str:
    """Return the usage of a quota, and its limit.

    Args:
        bound: 0 means no limit.
        used: None for an unknown usage, or for a rate.
    """
    if used is None:
        return f"at most {shown_amount(name, bound)}" if bound else "no limit"
    return (
        f"{shown_amount(name, used)} of {shown_amount(name, bound)}"
        if bound
        else f"{shown_amount(name, used)}, no limit"
    )
