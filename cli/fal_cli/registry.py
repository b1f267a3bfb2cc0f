"""The commands of `fal`: names, one line of help, and the module, which only its own command imports."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """Describe a command. A tuple, since every start of `fal` pays for this module's imports.

    Attributes:
        name: its name.
        help: one line about it.
        module: the module below `commands`, whose `add_arguments(parser)` declares arguments and sub-commands.
        aliases: its other names.
    """

    name: str
    help: str
    module: str
    aliases: tuple[str, ...] = ()


COMMANDS = (
    Command(name="api", help="Call an app and print its answer.", module="api.command"),
    Command(name="apps", aliases=("app",), help="Manage fal applications.", module="apps.command"),
    Command(name="completion", help="Print the shell code that completes fal's commands.", module="completion"),
    Command(name="deploy", help="Deploy a fal application.", module="deploy"),
    Command(name="doctor", help="Show versions and settings, and where each comes from.", module="doctor"),
    Command(name="down", help="Stop the controller on this machine.", module="down"),
    Command(name="env", help="Print shell exports that point fal clients at the controller.", module="env"),
    Command(name="environments", aliases=("envs",), help="Manage fal environments.", module="environments"),
    Command(name="files", aliases=("file",), help="Manage fal files.", module="files"),
    Command(name="keys", aliases=("key",), help="Manage fal keys.", module="keys"),
    Command(name="profile", aliases=("profiles",), help="Manage profiles: named hosts and keys.", module="profile"),
    Command(name="queue", help="Manage application queues.", module="queue"),
    Command(name="run", help="Run a function or an app without deploying it.", module="run"),
    Command(name="runners", aliases=("machine",), help="Manage fal runners.", module="runners.command"),
    Command(name="secrets", aliases=("secret",), help="Manage fal secrets.", module="secrets"),
    Command(name="status", help="Show the controller on this machine.", module="status"),
    Command(name="up", help="Start a controller on this machine.", module="up"),
)
