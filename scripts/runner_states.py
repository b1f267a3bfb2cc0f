"""Write docs/reference/runner-states.md from the table of allowed moves. A test compares the two."""

from __future__ import annotations

from pathlib import Path

from fal_server.core.autoscale import NEVER_USED_SECONDS
from fal_server.core.lifecycle import MOVES
from fal_server.core.places import UNSCHEDULABLE_DELAY_SECONDS
from fal_server.core.reconcile import FAILURE_DELAY_MOST_SECONDS, FAILURE_DELAY_SECONDS
from fal_server.core.revisions import MAX_GRACE_SECONDS
from fal_server.core.runners import RANK, RunnerState

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "runner-states.md"
S = RunnerState

MEANINGS: dict[RunnerState, str] = {
    S.FAILURE_DELAY: "An earlier start of the same revision failed, so this one waits: "
    f"{FAILURE_DELAY_SECONDS} s after the first failure, {2 * FAILURE_DELAY_SECONDS} s after the second, and so on up "
    f"to {FAILURE_DELAY_MOST_SECONDS} s. A successful start (one that passes its health check, if it has one) ends all "
    "waits. Waits survive a restart of the controller. The newer official client shows `crash_backoff`; both words are "
    "accepted.",
    S.PENDING: "It has no process yet: its environment is looked up or built, or no node has room "
    f"(tried again every {UNSCHEDULABLE_DELAY_SECONDS} s).",
    S.DOCKER_PULL: "The engine lacks the image of an app of kind `container` and builds it. A deploy builds the image "
    "before there is a runner, so this state appears only if the image was removed since.",
    S.SETUP: "Its process runs setup(). This ends when the app's port answers, or at `startup_timeout`.",
    S.IDLE: "It is ready and has no request. With requests it is shown as RUNNING, which is never stored.",
    S.DRAINING: "It gets no new requests and finishes those in flight. Without any, this state is skipped.",
    S.TERMINATING: "SIGTERM was sent; handle_exit() and teardown() run. After the grace "
    f"(at most {MAX_GRACE_SECONDS} s) its whole process group gets SIGKILL.",
    S.TERMINATED: "No process of its group is alive. It is never restarted, only replaced.",
}

REASONS: list[tuple[str, str]] = [
    ("N requests / M at once = ...", "PENDING: the scaling arithmetic that called for it."),
    ("no node has room (...)", "PENDING: what each machine type lacks on each node."),
    ("there is no node", "PENDING: the engine has no machine."),
    (
        "nothing can be started on node N: ...",
        "PENDING: the machine is in trouble, such as a full disk. This does not count as a failed start of the app.",
    ),
    (
        "waits after N failed start(s) in a row; the last one: ...",
        "FAILURE_DELAY: how many starts failed, and why the last one did.",
    ),
    ("rolling deploy", "PENDING: the first runner of a revision that an app is moving to."),
    ("replaces ID", "PENDING: it starts so that ID can stop (`stop --replace`, `apps rollout`)."),
    ("idle for keep_alive N s", "It had no request for this long, and the app keeps enough other runners."),
    (f"never used in {NEVER_USED_SECONDS} s", "No request ever reached it, and the app has no minimum of runners."),
    ("no longer needed", "It was no longer needed when it was about to start."),
    ("revision ... does not serve APP any more", "The app moved to another revision, or a deploy was given up."),
    ("revision ... is being rolled out", "A replacement that a rolling deploy made unnecessary."),
    (
        "unhealthy: ...",
        "It failed `failure_threshold` health checks in a row; the text describes the last failure.",
    ),
    ("it never passed its health check: ...", "It was killed, and counts as a failed start."),
    ("ordered on NODE as TYPE", "In `fal runners get`: the controller told the engine to start it."),
    ("its app was deleted", "`fal apps delete`."),
    ("stopped by request / killed by request", "`fal runners stop` and `fal runners kill`."),
    ("rolled out", "`fal apps rollout`."),
    ("not ready within startup_timeout N s", "Setup took too long: it was killed, and counts as a failed start."),
    ("... it broke the connection of request ID", "It was killed; the text before says how it had ended by itself."),
    ("it answered 503 to request ID", "It was killed, see [what answers mean](calling.md)."),
    ("request ID outlived request_timeout", "It was killed, because nothing else ends the request."),
    ("the app asked for it (x-fal-stop-runner)", "A response had this header."),
    ("the call that started it has ended", "`fal run` is done, or its caller disconnected."),
]

# Ordered by a runner's life.
SPINE = [S.FAILURE_DELAY, S.PENDING, S.DOCKER_PULL, S.SETUP, S.IDLE, S.DRAINING, S.TERMINATING, S.TERMINATED]


def moves() -> list[tuple[RunnerState, RunnerState]]:
    """Return all allowed moves, in the order of a runner's life."""
    return [(state, target) for state in SPINE for target in sorted(MOVES[state], key=RANK.__getitem__)]


def mermaid() -> str:
    """Return the table as a mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {S.PENDING.name}", f"    [*] --> {S.FAILURE_DELAY.name}"]
    lines += [f"    {state.name} --> {target.name}" for state, target in moves()]
    return "\n".join([*lines, f"    {S.TERMINATED.name} --> [*]"])


def ascii_diagram() -> str:
    """Return the table as plain text. Each state has arrows to the states that may follow."""
    width = max(len(state.name) for state in SPINE)
    return "\n".join(
        f"{state.name:<{width}}  --> {', '.join(t.name for s, t in moves() if s is state) or '(the end)'}"
        for state in SPINE
    )


def render() -> str:
    """Return the whole page."""
    states = "\n".join(f"| {state.name} | {MEANINGS[state]} |" for state in SPINE)
    reasons = "\n".join(f"| {reason} | {meaning} |" for reason, meaning in REASONS)
    return f"""# The states of a runner

<!-- Written by scripts/runner_states.py from fal_server/core/lifecycle.py: change it there, then run the script. -->

A runner is never restarted, only replaced. It has two stored states, each with one writer. The **observed**
state is what it does; only `lifecycle.step` changes it, by the table below and only forward. The **desired** state is
what it should do (`serve`, `drain`, `gone`); services and the reconciler write it. A late or repeated report changes
nothing. Every change is stored with its time and reason, in the transaction that stores the runner;
`fal runners get` shows the changes. A runner is stopped only after the router has confirmed that it sends no more
requests to it.

```mermaid
{mermaid()}
```

The same in plain text:

```text
{ascii_diagram()}
```

| state | meaning |
|---|---|
{states}
| {S.RUNNING.name} | {S.IDLE.name} with requests in flight; shown, never stored. |

## Why it is in that state

Each runner has a reason in words. A reason to wait ends with the wait. A reason to stop remains after the end. If the
runner ended by itself, the reason comes from the last output of its process.

| reason | when |
|---|---|
{reasons}
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render())


if __name__ == "__main__":
    main()
