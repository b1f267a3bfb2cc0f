"""The commands of `fal`: names, one line of help, and the module. The module is imported only when its command runs."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command. It is a tuple because every start of `fal` pays for this module's imports.

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


GROUPS = {
    "The controller on this machine": (
        Command(name="up", help="Start a controller on this machine.", module="up"),
        Command(name="down", help="Stop the controller on this machine.", module="down"),
        Command(name="status", help="Show the controller on this machine.", module="status"),
        Command(name="env", help="Print shell exports that point fal clients at the controller.", module="env"),
        Command(name="node", aliases=("nodes",), help="Run runners on further machines.", module="node"),
        Command(name="db", help="Back up or move the database of the controller.", module="db"),
    ),
    "Apps": (
        Command(name="dev", help="Serve an app, and again after each edit of its files.", module="dev.command"),
        Command(name="deploy", help="Deploy a fal application.", module="deploy"),
        Command(name="run", help="Run a function or an app without deploying it.", module="run"),
        Command(name="api", help="Call an app and print its answer.", module="api.command"),
        Command(name="curl", help="Call an app with curl.", module="curl"),
        Command(name="logs", aliases=("log",), help="Show the logs of several apps, merged.", module="logs"),
        Command(name="apps", aliases=("app",), help="Manage fal applications.", module="apps.command"),
        Command(name="drains", aliases=("drain",), help="Send logs to a receiver of your own.", module="drains"),
        Command(name="notices", aliases=("notice",), help="Be told when something is wrong.", module="notices"),
        Command(name="runners", aliases=("machine",), help="Manage fal runners.", module="runners.command"),
        Command(name="top", help="Show apps and runners as they change, and what they use.", module="top"),
        Command(name="requests", aliases=("request",), help="Show which requests ended how.", module="requests"),
        Command(name="queue", help="Manage application queues.", module="queue"),
    ),
    "What apps use": (
        Command(name="secrets", aliases=("secret",), help="Manage fal secrets.", module="secrets"),
        Command(name="files", aliases=("file",), help="Manage fal files.", module="files"),
        Command(name="environments", aliases=("envs",), help="Manage fal environments.", module="environments"),
    ),
    "Access": (
        Command(name="auth", help="Show who you are to a controller.", module="auth"),
        Command(
            name="teams",
            aliases=("team", "account", "accounts"),
            help="Manage accounts, and the members of teams.",
            module="teams",
        ),
        Command(name="audit", help="Show who changed what.", module="audit"),
        Command(name="keys", aliases=("key",), help="Manage fal keys.", module="keys"),
        Command(name="profile", aliases=("profiles",), help="Manage profiles: named hosts and keys.", module="profile"),
    ),
    "Agents": (
        Command(name="mcp", help="Serve tools for agents over standard input and output.", module="mcp"),
        Command(name="skills", aliases=("skill",), help="Texts that teach agents this command line.", module="skills"),
    ),
    "Help": (
        Command(name="help", help="Show the help of fal or of a command.", module="help"),
        Command(name="doctor", help="Find what is wrong with settings or controller.", module="doctor.command"),
        Command(name="changelog", help="Show what is new.", module="changelog"),
        Command(name="completion", help="Print the shell code that completes fal's commands.", module="completion"),
    ),
}
COMMANDS = tuple(command for commands in GROUPS.values() for command in commands)

STORED_IN_PROFILES = (
    "keys and hosts are stored in profiles: `fal profile key` stores a key, `fal keys create` makes one"
)
_LOGS = "`fal logs` shows the logs of all apps, `fal runners logs ID` the log of a runner"
_LISTS = "`fal apps list` and `fal runners list` show what runs"
_RUNNERS = "this is a command of runners: see `fal help runners`"
_APPS = "this is a command of apps: see `fal help apps`"
# Messages for words that people try but that are not commands.
HINTS = {
    **dict.fromkeys(("login", "logout"), STORED_IN_PROFILES),
    **dict.fromkeys(("whoami",), "`fal auth whoami` shows who you are"),
    **dict.fromkeys(("tail",), _LOGS),
    **dict.fromkeys(("ps", "ls", "list"), _LISTS),
    **dict.fromkeys(("exec", "shell", "ssh", "attach", "kill"), _RUNNERS),
    **dict.fromkeys(("delete", "rm", "scale", "rollout", "rollback", "set-rev"), _APPS),
    **dict.fromkeys(("create", "init", "new"), "write a file with a fal.App and run `fal deploy FILE.py`"),
    **dict.fromkeys(("start", "serve", "server"), "`fal up` starts a controller, `fal deploy FILE.py` an app"),
    **dict.fromkeys(("stop",), "`fal down` stops the controller, `fal runners stop ID` a runner"),
    **dict.fromkeys(("call", "invoke"), "`fal api APP key=value` calls an app"),
}
