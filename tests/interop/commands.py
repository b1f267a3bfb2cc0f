"""Every command of the official packages: what it is known to come to here, and where the two clients differ.

`tests.interop.report` makes docs/compatibility.md of this and of what the tests saw.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that the two clients do not send alike, and why.

    Attributes:
        commands: a pattern of the commands that it concerns.
        place: a pattern of the field in which it shows; empty where a whole request does.
        extra: a method that the official client calls beside those that both call.
        what: what differs.
        why: why it stays so.
    """

    commands: str
    place: str = ""
    extra: str = ""
    what: str
    why: str


DIFFERENCES = (
    Difference(
        commands="deploy",
        extra="ListAliases",
        what="The official client lists the apps before a deploy; ours does so only where it needs the answer.",
        why="It wants to know whether this is a first deploy, to print a tip.",
    ),
    Difference(
        commands=r"(deploy|run) .*(tiny|served)",
        place=r"environments\[0\]\.configuration\.requirements",
        what="What serves HTTP asks for other packages beside the app's own.",
        why="Each client sends its own serving code along, by value, and asks for what that code imports.",
    ),
    Difference(
        commands="run .*--no-cache",
        place=r"environments\[0\]\.force",
        what="`fal run --no-cache`: ours asks for a build from nothing, theirs does not.",
        why="That is what the flag is for.",
    ),
    Difference(
        commands="runners shell",
        place=r"request\.tty",
        what="`fal runners shell` with a pipe on its standard input: theirs asks for a terminal, ours for pipes.",
        why="What is piped into a shell shall not be echoed, nor its end be lost. On a terminal both ask for one.",
    ),
    Difference(
        commands="runners logs",
        what="The official client reads logs over REST; ours by `fal.v1.Logs`, or over REST where that is lacking.",
        why="Lines arrive in order, with a cursor, over the connection that is there already.",
    ),
)
