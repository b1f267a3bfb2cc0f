"""The commands of the official packages, with remarks. The two clients' differences are here, too.

`tests.interop.report` makes docs/reference/compatibility.md from this and from the tests' results.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference between the requests of the two clients, and its reason.

    Attributes:
        commands: a pattern of the affected commands.
        place: a pattern of the field that differs; empty if a whole request does.
        extra: a pattern of calls that only the official client makes: a method, and the entry point of a Run.
        what: what differs.
        why: the reason for keeping it.
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
        what="The official client lists the apps before a deploy; ours only if it needs the answer.",
        why="It prints a tip at a first deploy.",
    ),
    Difference(
        commands=r"(deploy|run) .*(tiny|served|EveryOption|OldForm|InAnImage|by-file)",
        place=r"environments\[0\]\.configuration\.requirements",
        what="For an app that serves HTTP, each asks for other packages beside the app's own.",
        why="Each client sends its own serving code by value, and asks for the packages that this code imports.",
    ),
    Difference(
        commands=r"(deploy|run) .*(InAnImage|in_an_image)",
        place=r"configuration\.image\.docker_ignore",
        what="The regular expressions for files that an image leaves out look different.",
        why="They match the same paths.",
    ),
    Difference(
        commands=r"run by-",
        place=r"request\.application_name",
        what="`fal run NAME` of an app in pyproject.toml: ours calls it NAME, theirs by its class or entry point.",
        why="The user asks for NAME, and looks for addresses and logs under it.",
    ),
    Difference(
        commands=r"run by-entry",
        extra=r"Run .*\.build_metadata",
        what="`fal run` of an entry point: theirs asks the code for its paths first, with a separate run.",
        why="Theirs prints an address for each path, ours their common prefix.",
    ),
    Difference(
        commands="run .*--no-cache",
        place=r"environments\[0\]\.force",
        what="`fal run --no-cache`: ours asks for a new build, theirs does not.",
        why="The flag is for that.",
    ),
    Difference(
        commands="runners shell",
        place=r"request\.tty",
        what="`fal runners shell` with a pipe on its standard input: theirs asks for a terminal, ours for pipes.",
        why="A terminal would echo the piped input and lose its end. On a terminal both ask for one.",
    ),
    Difference(
        commands="runners logs",
        what="The official client reads logs over REST; ours by `fal.v1.Logs` if the controller has it.",
        why="Lines arrive in order, with a cursor, over the connection that is already open.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, or a call, of the official packages.

    Attributes:
        name: the name of the command; tests that show it working have `covers(name)`.
        remark: a note for users of a working command.
        cannot: why it cannot work with one's own controller; empty if it works.
        unseen: why no test shows it working.
        elsewhere: the make target whose tests show it working, if `make test-interop` does not.
    """

    name: str
    remark: str = ""
    cannot: str = ""
    unseen: str = ""
    elsewhere: str = ""


_BRACKETS = "Text in `[brackets]` is missing on the screen: the official client reads it as markup."
_TIMES = "Times are right with `TZ=UTC`: the official client takes local time for UTC."
_CLOUD = "It uses the service's own pages, whose addresses are fixed."

FAL = (
    Command(name="runners list", remark=_TIMES),
    Command(name="runners logs", remark=f"{_BRACKETS} `-n 5` shows the oldest five lines and `-n +5` the newest."),
    Command(name="runners logs --follow"),
    Command(name="runners stop"),
    Command(name="runners stop --replace"),
    Command(name="runners kill"),
    Command(name="runners exec", remark="Standard input is not sent without `-it`."),
    Command(name="runners exec -it"),
    Command(name="runners shell"),
    Command(name="runners gpus"),
    Command(name="apps list"),
    Command(name="apps list --env"),
    Command(name="apps list-rev"),
    Command(name="apps set-rev"),
    Command(name="apps scale"),
    Command(name="apps rollout"),
    Command(name="apps runners", remark=_TIMES),
    Command(name="apps gpus"),
    Command(name="apps delete"),
    Command(name="apps delete --env"),
    Command(name="apps delete-rev"),
    Command(name="keys create", remark="Without a flag it asks, so it needs a terminal."),
    Command(name="keys create --permission"),
    Command(name="keys list", remark="A key of a preset other than `FULL` and `API` has no scope, and shows `-`."),
    Command(name="keys revoke"),
    Command(name="secrets set"),
    Command(name="secrets list"),
    Command(name="secrets unset"),
    Command(name="environments create"),
    Command(name="environments list", remark=_BRACKETS),
    Command(name="environments delete"),
    Command(name="queue size"),
    Command(name="queue flush"),
    Command(name="files list"),
    Command(name="files upload"),
    Command(
        name="files download", remark="The path begins with `/data/`: the official client refuses all others itself."
    ),
    Command(name="files mv"),
    Command(name="files rm"),
    Command(
        name="files upload-url",
        remark="Addresses of the controller's own networks are refused, unless `fal up --webhook-allow` names them.",
    ),
    Command(name="deploy (class app)"),
    Command(
        name="deploy (function)",
        remark="It is stored, but nothing can call it: a function without `serve` has no port.",
    ),
    Command(name="deploy (served function)"),
    Command(name="deploy (app files)"),
    Command(
        name="deploy (pyproject.toml, python_entry_point)",
        remark="The controller must be able to get the requirements: a path on the deployer's machine is refused.",
    ),
    Command(name="deploy (container)", elsewhere="test-containers"),
    Command(
        name="deploy (requirements that are a local directory)",
        remark="Over TLS only: the upload always uses `https`.",
    ),
    Command(name="deploy --attach/--detach"),
    Command(name="deploy --check"),
    Command(name="deploy --yes"),
    Command(name="deploy --env"),
    Command(name="deploy --message --annotation"),
    Command(name="deploy --strategy"),
    Command(
        name="deploy (pyproject.toml, image)",
        remark="It needs podman or docker beside the controller, and is refused at once if there is neither.",
        elsewhere="test-containers",
    ),
    Command(
        name="deploy (fal.distributed)",
        unseen="It starts one process for each NVIDIA GPU, with nccl, and the app must require PyTorch and pyzmq. "
        "Without a GPU, it says what is missing. Ours also runs on CPUs.",
    ),
    Command(name="run (function)"),
    Command(name="run (class app)"),
    Command(name="run (python_entry_point)"),
    Command(name="run --local", remark="It calls no controller."),
    Command(name="api", remark="Over TLS only: it always uses `https`."),
    Command(name="auth whoami"),
    Command(name="auth login", cannot=_CLOUD),
    Command(name="auth logout", cannot=_CLOUD),
    Command(
        name="account list, set, unset",
        remark="With a login token (`fal auth token` of ours), as with the service: a key belongs to one account.",
    ),
    Command(name="--team", remark="With a login token. Ignored with a key, which decides the account."),
    Command(name="profile list"),
    Command(name="profile create, set, host, unset, delete", remark="They call no controller."),
    Command(
        name="profile key", unseen="It asks for the key at a terminal and writes it to a file; it calls no controller."
    ),
    Command(name="doctor"),
    Command(name="completion"),
    Command(name="create", cannot="It fetches a template from GitHub and calls no controller."),
)

SDK = (
    Command(name="SyncServerlessClient().apps"),
    Command(name="SyncServerlessClient().runners"),
    Command(name="SyncServerlessClient().keys"),
    Command(name="SyncServerlessClient().secrets"),
    Command(name="SyncServerlessClient().environments"),
    Command(name="SyncServerlessClient().deploy"),
)

_BY_NAME = "through a proxy for the service's names (docs/howto/tls.md)."

FAL_CLIENT = (
    Command(name="run"),
    Command(name="submit, status, result"),
    Command(name="cancel"),
    Command(name="subscribe"),
    Command(name="stream"),
    Command(name="realtime", remark=f"With `use_jwt=False`, or {_BY_NAME}"),
    Command(name="ws_connect", remark=f"With `use_jwt=False`, or {_BY_NAME}"),
    Command(name="upload, upload_file, upload_image", remark=f"Their addresses are fixed: {_BY_NAME}"),
    Command(name="run_async, submit_async, subscribe_async, stream_async"),
    Command(name="status_async, result_async, cancel_async"),
    Command(name="realtime_async, ws_connect (asyncio)", remark=f"With `use_jwt=False`, or {_BY_NAME}"),
    Command(name="upload, upload_file, upload_image (asyncio)", remark=f"Their addresses are fixed: {_BY_NAME}"),
    Command(name="fal.apps.ws", remark="With `FAL_WS_RUN_HOST`, which is the address of `FAL_RUN_HOST`."),
    Command(name="the metadata of an app", remark="By the published REST client."),
    Command(name="workflows (publish, list, get, change, run, stream, delete)"),
    Command(name="workflows (webhook)"),
    Command(
        name="older clients (1.20, 1.50, 1.70, 1.80)",
        remark="`deploy`, `runners`; 1.20 without the newer flags. 1.20 and 1.50 also need `FAL_HOST`, with the "
        "value of `FAL_GRPC_HOST`.",
    ),
)

JAVASCRIPT = (
    Command(name="fal.run"),
    Command(name="fal.subscribe", remark='By asking, and by `mode: "streaming"`.'),
    Command(name="fal.queue"),
    Command(name="fal.stream"),
    Command(name="fal.storage.upload"),
    Command(
        name="fal.realtime",
        remark="It connects to `wss://fal.run` past every `proxyUrl`: a few lines in the page redirect that here "
        "(docs/howto/javascript.md).",
    ),
)
