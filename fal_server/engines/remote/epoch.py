"""Which start of which controller an order to a node is of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A start of a controller on its database.

    Value: it never changes.

    Attributes:
        number: counts the starts; kept in the database, so that whoever takes the database over has a higher one.
        holder: random for each start, because a copy of the database counts to the same numbers.
    """

    number: int
    holder: str

    def __str__(self) -> str:
        """Return it as a part of a name."""
        return f"{self.number}-{self.holder}"

    @classmethod
    def parse(cls, text: str) -> Epoch | None:
        """Return the epoch of this text; None if it is not one."""
        number, separator, holder = text.partition("-")
        if not separator or not (number.isascii() and number.isdecimal()) or not holder.isalnum():
            return None
        return cls(number=int(number), holder=holder)
