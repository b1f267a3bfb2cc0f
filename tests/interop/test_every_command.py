"""Every command of the published command line is run. It has a row in the tables.

Most commands have tests in the files of their nouns. Here they run one after another in a home that our `fal up` has
used. The test compares exit codes and first lines, with the published client and with ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.interop.commands import FAL
from tests.interop.conftest import SAMPLES, up_was_here
from tests.support.controller import BIN, Controller
from tests.support.official import Official

LEAVES = """
import argparse, json
from fal.cli.main import _get_main_parser

def leaves(parser, path):
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(path)
    for group in groups:
        first = {}
        for name, child in group.choices.items():
            first.setdefault(id(child), (name, child))
        for name, child in first.values():
            yield from leaves(child, [*path, name])

print(json.dumps(sorted(leaves(_get_main_parser(), []))))
"""
FIRST_LINES = 8
REVISION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, its exit code, and a pattern of its first lines. The {names} in both are replaced.

    Attributes:
        says: the output of both clients; `published` and `ours` if they differ.
        code: the exit code of both clients; `our_code` if ours differs, for a reason in
            docs/reference/compatibility.md.
        lines: how many first lines count.
        stdin: the typed input.
        walked_by_ours: False if the published command needs a login of the service, which ours does not have.
    """

    command: str
    code: int = 0
    our_code: int | None = None
    says: str = ""
    published: str = ""
    ours: str = ""
    lines: int = FIRST_LINES
    stdin: str = ""
    walked_by_ours: bool = True


NO_LOGIN = "You must be authenticated"
DEPLOY = f"deploy {SAMPLES}/tiny.py --app-name {{app}}"
WALK = (
    Step(command="doctor", published="isolate", ours="controller"),
    Step(command="completion bash", says="#compdef fal"),
    Step(command="auth whoami", says="local"),
    Step(command="auth logout", published="not logged in", our_code=2, ours="profile"),
    Step(command="auth login", code=1, published="Login or sign up", our_code=2, ours="`fal profile key` stores a key"),
    Step(command="account list", code=1, published=NO_LOGIN, walked_by_ours=False),
    Step(command="account set other", code=1, published=NO_LOGIN, walked_by_ours=False),
    Step(command="account unset", code=1, published=NO_LOGIN, walked_by_ours=False),
    Step(command="create app", code=1, our_code=2, ours="write a file with a fal.App"),
    Step(command="environments create walked --description words", says="Created environment 'walked'"),
    Step(command="environments list", says="walked"),
    Step(command="environments delete walked --yes", says="Deleted environment 'walked'"),
    Step(command="secrets set WALKED=value"),
    Step(command="secrets list", says="WALKED"),
    Step(command="secrets unset WALKED"),
    Step(command="keys create --scope API --desc walked", says="FAL_KEY="),
    Step(command="keys list", says="walked"),
    Step(command="keys revoke {key}"),
    Step(command=DEPLOY, says="{app}"),
    Step(command=f"{DEPLOY} --check --yes", published="Deployment Check: {app}", ours="Deployed {app}"),
    Step(command=f"run {SAMPLES}/functions.py::counted", says="counts to 1,000,000", lines=60),
    Step(command="apps list", says="{app}", lines=20),
    Step(command="apps list-rev {app}", says="{revision}"),
    Step(command="apps set-rev {app} {older}"),
    Step(command="apps delete-rev {revision}"),
    Step(command="apps set-rev {app} {revision}", code=1, says="revision '{revision}' not found"),
    Step(command="apps scale {app} --keep-alive 301", says="301"),
    Step(command="api local/{app} text=word", says="word1st"),
    Step(command="apps runners {app}", says="{runner}"),
    Step(command="apps gpus {app}", says="Total: 0"),
    Step(command="runners list", says="{runner}", lines=20),
    Step(command="runners logs {runner}", says="setup is done", lines=40),
    Step(command="runners exec {runner} -- echo inside", says="inside"),
    Step(command="runners shell {runner}", stdin="echo $((40 + 2))\nexit\n", says="42", lines=40),
    Step(command="runners gpus", says="Total: 0"),
    Step(command="runners stop {runner}"),
    Step(command="runners kill nosuch", code=1, says="not found"),
    Step(command="apps rollout {app}", says="Rolled out application {app}"),
    Step(command="queue size {app}", says="0"),
    Step(command="queue flush {app}", published="Queue flushed", ours="Nothing waits for"),
    Step(command="files upload {folder}/one.txt walked/one.txt"),
    Step(command="files list walked", says="one.txt"),
    Step(command="files mv walked/one.txt walked/two.txt"),
    Step(command="files mv walked/none.txt walked/two.txt", code=1, says="/data/walked/none.txt not found"),
    Step(command="files download /data/walked/two.txt {folder}/back.txt"),
    Step(command="files upload-url http://192.168.0.1/page walked/page", code=1, says="192.168.0.1"),
    Step(command="files rm walked"),
    Step(command="profile create walked", published="Profile walked created", ours="Profile 'walked' created"),
    Step(command="profile host localhost:1", says="set to localhost:1"),
    Step(command="profile key", stdin="id:secret\n", says="Key set for profile"),
    Step(command="profile list", says="host, key"),
    Step(command="profile unset", published="Default profile unset", ours="No profile is current"),
    Step(command="profile set walked", says="walked"),
    Step(command="profile delete walked", says="walked"),
    Step(command="apps delete {app}", says="{app}"),
)


@pytest.fixture(params=["published", "ours"])
def walker(
    request: pytest.FixtureRequest, client: Official, secure: Controller, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Official]:
    """Return a client by its name, in its own home. Our `fal up` has used the home."""
    found = replace(client, home=tmp_path_factory.mktemp("walked"))
    if request.param == "ours":
        found = replace(found, python=BIN / "python", extra={**client.extra, "FAL_GRPC_TLS": "1"})
    assert found.environment["HOME"] == str(found.home)
    up_was_here(secure, found.home)
    return request.param, found


def test_every_command_has_a_row_and_is_walked(client: Official) -> None:
    rows = {row.name.partition(" -")[0].partition(" (")[0] for row in FAL}
    rows |= {
        f"{noun} {verb.strip()}" for row in rows for noun, _, verbs in [row.partition(" ")] for verb in verbs.split(",")
    }
    leaves = set(client.script(LEAVES))
    assert leaves - rows == set()
    assert {leaf for leaf in leaves if not any(f"{step.command} ".startswith(f"{leaf} ") for step in WALK)} == set()


def test_each_ends_with_its_code_and_says_its_lines(walker: tuple[str, Official], tmp_path: Path) -> None:
    who, client = walker
    (tmp_path / "one.txt").write_text("one\n")
    names = {"folder": str(tmp_path), "app": f"walked-{who}"}
    wrong = []
    for step in WALK:
        if who == "ours" and not step.walked_by_ours:
            continue
        done = client.fal(*step.command.format(**names).split(), stdin=step.stdin.encode(), check=False)
        first = "\n".join((done.stdout + done.stderr).splitlines()[: step.lines])
        code = step.our_code if who == "ours" and step.our_code is not None else step.code
        says = (step.says or (step.ours if who == "ours" else step.published)).format(**names)
        if done.returncode != code or says not in first:
            wrong.append(f"fal {step.command}: code {done.returncode}, not {code}, or not {says!r}:\n{first}")
        names |= _learnt(step, done.stdout, client, names["app"])
    assert not wrong, "\n\n".join(wrong)
    assert (tmp_path / "back.txt").read_text() == "one\n"


def _learnt(step: Step, said: str, client: Official, app: str) -> dict[str, str]:
    """Return the names that later commands need."""
    key = re.search(r"FAL_KEY='([\w-]+):", said)
    if key:
        return {"key": key[1]}
    if step.command.endswith("--check --yes"):
        newest, older = REVISION.findall(client.fal("apps", "list-rev", app).stdout)[:2]
        return {"revision": newest, "older": older}
    if step.command.startswith("api "):
        return {"runner": client.json("apps", "runners", app)["runners"][0]["runner_id"]}
    return {}
